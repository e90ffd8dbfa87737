"""What the consumer handed out, poll by poll: which record the log has before which other one.

Offsets have gaps where a transaction ended or compaction was at work. The consumer fetches the log
in order, so two records that it handed out one after the other have nothing between them, and the
log need not be asked.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

# Gaps that are remembered for a partition: as many as records may wait for their agent, and more.
# Of a forgotten one the log is asked.
MAX_GAPS = 16_384


class Polls:
    """Counts polls, and remembers the gaps that they had. Partitions are Faust's ``TP``."""

    def __init__(self, max_gaps: int = MAX_GAPS) -> None:
        self.count = 0
        self._max_gaps = max_gaps
        self._last: dict[tuple[str, int], int] = {}
        self._gaps: dict[tuple[str, int], dict[int, int]] = {}
        self._order: dict[tuple[str, int], deque[int]] = {}

    def note(self, records: Mapping[Any, Iterable[Any]] | None) -> None:
        """Take a poll's records in."""
        for partition, batch in (records or {}).items():
            key = (partition.topic, partition.partition)
            last = self._last.get(key)
            for record in batch:
                offset: int = record.offset
                if last is not None and offset > last + 1:
                    self._remember(key, last, offset)
                last = offset
            if last is not None:
                self._last[key] = last

    def _remember(self, key: tuple[str, int], before: int, offset: int) -> None:
        gaps = self._gaps.setdefault(key, {})
        order = self._order.setdefault(key, deque())
        if offset not in gaps:
            order.append(offset)
        gaps[offset] = before
        if len(order) > self._max_gaps:
            del gaps[order.popleft()]

    def adjacent(self, topic: str, partition: int, before: int, offset: int) -> bool:
        """Whether the log is known to have no record between these two offsets."""
        return self._gaps.get((topic, partition), {}).get(offset) == before
