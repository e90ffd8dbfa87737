"""What is known after a run: what was sent, what every system holds, what services saw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

Row = Mapping[str, Any]  # of a table

NUMBER = "chaos-number"  # the header that names what was sent; dead letters keep it


class Kind(StrEnum):
    """What a record stands for, and so what may become of it."""

    ORDER = "order"
    REJECTED = "rejected order"  # the order service refuses it: compensated
    OTHER = "other"  # no service is needed: always completed
    BAD = "bad"  # a dead letter of its own, never a saga


@dataclass(frozen=True, slots=True)
class Sent:
    """A record as the producer made it. A duplicate has the id, kind and bytes of its original.

    ``seq`` numbers the distinct messages of a lead, from 1.
    """

    number: int
    kind: Kind
    processing_id: str
    lead: str
    seq: int
    key: bytes | None
    value: bytes | None


@dataclass(frozen=True, slots=True)
class Logged:
    """A record of a topic as it was read in the end, in the order of its partition."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()

    def header(self, name: str) -> str:
        """A header's text; empty without one."""
        return dict(self.headers).get(name, b"").decode()


@dataclass(slots=True)
class Request:
    """A request that the order service took in. Times are seconds since the run began.

    ``key`` is that of the creation, also for a cancellation. ``effect`` says what it changed;
    ``outcome`` how it ended for the client.
    """

    at: float
    operation: Literal["create", "cancel"]
    key: str
    processing_id: str
    lead: str
    seq: int
    body: str  # a hash
    effect: Literal["", "created", "cancelled"] = ""
    effect_at: float | None = None
    outcome: str = "under way"


@dataclass(slots=True)
class Mail:
    """A mail whose text the mail server took in. ``accepted``: whether it will be delivered."""

    at: float
    key: str
    message_id: str
    accepted: bool
    outcome: str


@dataclass(frozen=True, slots=True)
class Event:
    """A fault, or something else worth telling."""

    at: float
    text: str


@dataclass(slots=True)
class Evidence:
    """Everything that the checks look at; rows have the columns of their tables.

    ``effects`` are the requests that changed something, in the order in which they did.
    ``active`` are the creation keys of the orders that stand in the end. ``acknowledged`` are
    the numbers of the records whose receipt the broker confirmed to the producer.
    """

    topic: str
    sent: Mapping[int, Sent] = field(default_factory=dict)
    acknowledged: frozenset[int] = frozenset()
    log: Sequence[Logged] = ()
    sagas: Sequence[Row] = ()
    steps: Sequence[Row] = ()
    tasks: Sequence[Row] = ()
    activities: Sequence[Row] = ()
    outbox: Sequence[Row] = ()
    dead_letters: Sequence[Row] = ()
    requests: Sequence[Request] = ()
    effects: Sequence[Request] = ()
    active: frozenset[str] = frozenset()
    mails: Sequence[Mail] = ()
    outbound: Sequence[Logged] = ()
    letters: Sequence[Logged] = ()


@dataclass(frozen=True, slots=True)
class Violation:
    """Something that was promised and did not hold. ``ids`` are the messages concerned.

    ``no progress``: work stood still although nothing was broken for long. ``shows nothing``: the
    run lacks something without which a clean result would mean nothing.
    """

    kind: Literal["lost", "doubled", "out of order", "wrong", "no progress", "shows nothing"]
    text: str
    ids: tuple[str, ...] = ()
