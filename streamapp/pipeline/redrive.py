"""The headers of a redriven record: which failure it answers, and from where it goes on.

A redrive is a dead letter's record sent again, to its own partition. Only such a record passes
the local look-up; what it may start is decided by where its saga stands (protocol, 6).
"""

from __future__ import annotations

from dataclasses import dataclass

from streamapp.pipeline.dead_letter import (
    MAX_NAME,
    NO_RUN,
    PREFIX,
    REDRIVE_PREFIX,
    origin_text,
    own_headers,
)
from streamapp.pipeline.outcomes import Headers
from streamapp.saga.model import Source

MAX_DIGITS = 11
_MAX_INT = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Redrive:
    """What a redriven record asks for.

    ``id`` is that of the letter it answers, so that the same letter sent twice is one redrive.
    ``run`` is where the saga stood, ``NO_RUN`` for a message that had none: the whole record
    starts the run after it. With ``action``, that action of the run is repeated alone.
    """

    id: str
    run: int
    action: str


def redrive_headers(original: Headers, origin: Source, redrive: Redrive) -> Headers:
    """The headers of the redriven record of a message that came first in ``origin``."""
    return (
        *own_headers(original),
        (PREFIX + "origin", origin_text(origin).encode()),
        (REDRIVE_PREFIX + "id", redrive.id.encode()),
        (REDRIVE_PREFIX + "run", str(redrive.run).encode()),
        (REDRIVE_PREFIX + "action", redrive.action.encode()),
    )


def redrive_of(headers: Headers) -> Redrive | None:
    """What a record's headers ask for; None for one that is not, or not readably, redriven."""
    found = dict(headers)
    try:
        id_ = found[REDRIVE_PREFIX + "id"].decode()
        action = found.get(REDRIVE_PREFIX + "action", b"").decode()
        run = found[REDRIVE_PREFIX + "run"].decode()
        redrive = Redrive(id_, int(run) if len(run) <= MAX_DIGITS else _MAX_INT, action)
    except (KeyError, ValueError):
        return None
    fits = (
        1 <= len(id_) <= MAX_NAME
        and len(action) <= MAX_NAME
        and "\0" not in id_ + action
        and NO_RUN <= redrive.run < _MAX_INT
    )
    return redrive if fits else None
