"""Ids of journal writes: random, drawn from the system by the hundred."""

from __future__ import annotations

import os
from uuid import UUID

_SIZE = 16  # bytes
_AT_ONCE = 256

_left: list[UUID] = []


def new_write_id() -> UUID:
    """A random UUID (version 4), never given before, in no process."""
    if not _left:
        drawn = os.urandom(_SIZE * _AT_ONCE)
        _left.extend(
            UUID(bytes=drawn[at : at + _SIZE], version=4) for at in range(0, len(drawn), _SIZE)
        )
    return _left.pop()


# A forked process must not give the ids that its parent has left.
os.register_at_fork(after_in_child=_left.clear)
