"""What the demo shows while it runs, on standard error."""

from __future__ import annotations

import time
from collections import deque

from rich.console import Console
from rich.live import Live
from rich.text import Text

from streamapp.demo.counts import Counts
from streamapp.demo.stack import Stack

_LINE_EVERY = 5.0  # seconds, where there is no terminal to keep one line up to date
_RATE_OVER = 5.0  # seconds


class Display:
    """A line that is kept up to date on a terminal; elsewhere one line every few seconds."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._live: Live | None = None
        self._last_line = float("-inf")
        self._settled: deque[tuple[float, int]] = deque()

    def say(self, text: str) -> None:
        """Show a line that stays."""
        self._console.print(text, markup=False)

    def begin(self, stack: Stack) -> None:
        """Tell where to look."""
        self.say(f"worker   {stack.web}/api/stats  {stack.web}/metrics")
        self.say(f"circuits {stack.web}/api/circuits")
        self.say(f"letters  {stack.web}/api/dlq")
        self.say(f"log      {stack.worker.log}")
        if self._console.is_terminal:
            self._live = Live(console=self._console, transient=True, auto_refresh=False)
            self._live.start()

    def update(self, sent: int, counts: Counts) -> None:
        """Show where things stand."""
        now = time.monotonic()
        self._settled.append((now, counts.settled))
        while now - self._settled[0][0] > _RATE_OVER:
            self._settled.popleft()
        if self._live is not None:
            self._live.update(Text(self._line(sent, counts), overflow="ellipsis"), refresh=True)
        elif now - self._last_line >= _LINE_EVERY:
            self._last_line = now
            self.say(self._line(sent, counts))

    def end(self) -> None:
        """Leave the terminal as it was."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _line(self, sent: int, counts: Counts) -> str:
        (then, before), (now, after) = self._settled[0], self._settled[-1]
        rate = (after - before) / (now - then) if now > then else 0.0
        parts = [
            f"sent {sent}",
            f"processed {counts.processed}",
            f"duplicates {counts.duplicates}",
            f"dead letters {counts.dead_lettered}",
            f"compensated {counts.sagas.get('COMPENSATED', 0)}",
            f"{rate:.0f}/s",
            f"open circuits: {', '.join(counts.open_circuits) or 'none'}",
        ]
        return "  ".join(parts)
