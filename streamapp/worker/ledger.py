"""The acknowledgement ledger of one partition: which offset may be committed.

A record is acknowledged only when it and all before it are finished. Faust's own bookkeeping
jumps gaps (a gap of one, and any gap at the head of a partition), which loses records.
"""

from __future__ import annotations

from collections import deque


class Ledger:
    """Offsets of one partition in the order of delivery, and the finished prefix of them.

    ``committable`` is the offset to commit: that of the first record which is not finished, or
    the one after the last. None until a record was taken in.
    """

    def __init__(self) -> None:
        self._pending: deque[int] = deque()  # not acknowledged, in the order of delivery
        self._unfinished: set[int] = set()
        self._last: int | None = None
        self.committable: int | None = None

    def add(self, offset: int) -> None:
        """Take in the next record.

        Raises ``ValueError`` for an offset that does not follow: a repeated or reordered
        delivery would make the finished prefix meaningless. Gaps are allowed, as compaction
        and transactions leave them.
        """
        if self._last is not None and offset <= self._last:
            raise ValueError(f"offset {offset} after {self._last}")
        if self.committable is None:
            self.committable = offset
        self._last = offset
        self._pending.append(offset)
        self._unfinished.add(offset)

    def finish(self, offset: int) -> None:
        """Mark a record finished: its outcome is durable.

        Raises ``ValueError`` for a record that is not pending.
        """
        if offset not in self._unfinished:
            raise ValueError(f"offset {offset} is not pending")
        self._unfinished.remove(offset)
        while self._pending and self._pending[0] not in self._unfinished:
            done = self._pending.popleft()
            self.committable = self._pending[0] if self._pending else done + 1

    @property
    def unfinished(self) -> int:
        """Records taken in that are not finished."""
        return len(self._unfinished)

    @property
    def held(self) -> int:
        """Records taken in that are not acknowledged: what a crash would have redelivered."""
        return len(self._pending)
