"""Log lines: structured, on standard error, for people or as JSON."""

from __future__ import annotations

import logging
import sys
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, TextIO

import structlog

CHATTER_INTERVAL = 60.0  # seconds
MAX_KEYS = 1000  # of a RateLimited; the one used longest ago is forgotten


def configure(level: str = "info", *, as_json: bool = False, stream: TextIO | None = None) -> None:
    """Set up structlog and the standard library's logging: one format, one stream.

    ``level`` is debug, info, warning or error. Standard output stays free for results.
    """
    target = sys.stderr if stream is None else stream
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    rendering: list[Any] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
        if as_json
        else [
            structlog.dev.ConsoleRenderer(
                colors=target.isatty(),
                # The default prints every frame's local variables: passwords, customers' texts.
                exception_formatter=structlog.dev.plain_traceback,
            )
        ]
    )
    handler = logging.StreamHandler(target)
    if level != "debug":
        handler.addFilter(ClientChatter())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        # Configuring again (a second app in one process, tests) must reach loggers in use.
        cache_logger_on_first_use=False,
    )


class RateLimited:
    """Lets one line a key and interval through, and tells how many it held back.

    >>> limited = RateLimited()
    >>> limited("database", log.warning, "database_away", error=str(error))
    """

    def __init__(self, interval: float = 60.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval = interval
        self._clock = clock
        self._seen: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def __call__(self, key: str, write: Callable[..., Any], event: str, **fields: Any) -> bool:
        """Write the line unless one of this key was written within the interval."""
        now = self._clock()
        last, held = self._seen.get(key, (None, 0))
        self._seen[key] = (now, 0) if last is None else (last, held + 1)
        self._seen.move_to_end(key)
        if len(self._seen) > MAX_KEYS:
            self._seen.popitem(last=False)
        if last is not None and now - last < self._interval:
            return False
        self._seen[key] = (now, 0)
        if held:
            fields["repeated"] = held
        write(event, **fields)
        return True

    def forget(self, key: str) -> None:
        """The condition is over: the next line of this key is written at once."""
        self._seen.pop(key, None)


class ClientChatter(logging.Filter):
    """One line a minute for each kind of line of the Kafka client: a broker that is away makes
    it write several a second."""

    CLIENTS = ("aiokafka", "faust", "mode")

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._written: OrderedDict[tuple[str, str], float] = OrderedDict()

    def filter(self, record: logging.LogRecord) -> bool:
        if not record.name.startswith(self.CLIENTS):
            return True
        key = (record.name, str(record.msg)[:200])
        now = self._clock()
        if now - self._written.get(key, float("-inf")) < CHATTER_INTERVAL:
            return False
        self._written[key] = now
        self._written.move_to_end(key)
        if len(self._written) > MAX_KEYS:
            self._written.popitem(last=False)
        return True
