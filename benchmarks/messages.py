"""The messages of a profile, the same for every contender, and what has to become of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from random import Random
from uuid import UUID

REFUSED = "Discontinued lamp"  # the order service refuses orders for it
_TEXT = "Good morning, I would like to order the desk lamp that we talked about last week. "
_TEXT_AT_MOST = 400  # characters of the customer's text; what is missing goes beside it
_RECENT = 500  # messages that a repetition is drawn from
SMALLEST = 200  # bytes; without padding a message has about as many


class Kind(StrEnum):
    """What is special about a message."""

    ORDER = "order"
    REPEATED = "repeated"
    REJECTED = "rejected"
    SLOW = "slow"
    INVALID = "invalid"


@dataclass(frozen=True, slots=True)
class Profile:
    """``count`` messages of ``leads`` leads, about ``size`` bytes each; the shares lie in 0..1.

    ``repeats``: share that repeats one of the valid messages shortly before. ``only_repeats``: this
    many different messages come first, and everything after them repeats one of these.
    ``slow``: share for which the order service takes ``slow_seconds``. ``hot``: share of a lead of
    its own. ``invalid``: share that is no JSON.
    """

    count: int
    leads: int = 1000
    size: int = 600
    repeats: float = 0.0
    only_repeats: int = 0
    rejected: float = 0.0
    slow: float = 0.0
    slow_seconds: float = 5.0
    hot: float = 0.0
    invalid: float = 0.0
    seed: int = 7

    def first(self, count: int) -> Profile:
        """The same messages, but only the first ``count``."""
        return replace(self, count=min(count, self.count))


@dataclass(frozen=True, slots=True)
class Sent:
    """One record; ``id`` is the processing id, also of those that cannot be read."""

    kind: Kind
    id: str
    key: bytes
    value: bytes


@dataclass(frozen=True, slots=True)
class Expected:
    """What the end state must hold."""

    records: int
    orders: int  # different valid messages whose order is not refused
    rejected: int
    repeated: int
    invalid: int

    @property
    def messages(self) -> int:
        """Different valid messages."""
        return self.orders + self.rejected


def make(profile: Profile) -> Iterator[Sent]:
    """The records in the order in which they are sent; the same profile gives the same ones."""
    random = Random(profile.seed)
    recent: list[Sent] = []
    for number in range(profile.count):
        if profile.only_repeats and number >= profile.only_repeats:
            yield replace(random.choice(recent), kind=Kind.REPEATED)
            continue
        if recent and random.random() < profile.repeats:
            yield replace(random.choice(recent), kind=Kind.REPEATED)
            continue
        made = _message(profile, random)
        yield made
        if made.kind is Kind.INVALID:
            continue
        if profile.only_repeats or len(recent) < _RECENT:
            recent.append(made)
        else:
            recent[random.randrange(_RECENT)] = made


def expected(profile: Profile) -> Expected:
    """Counted from the very records."""
    counts = dict.fromkeys(Kind, 0)
    for sent in make(profile):
        counts[sent.kind] += 1
    return Expected(
        records=profile.count,
        orders=counts[Kind.ORDER] + counts[Kind.SLOW],
        rejected=counts[Kind.REJECTED],
        repeated=counts[Kind.REPEATED],
        invalid=counts[Kind.INVALID],
    )


def _message(profile: Profile, random: Random) -> Sent:
    id_ = str(UUID(int=random.getrandbits(128), version=4))
    lead = (
        "lead-hot" if random.random() < profile.hot else f"lead-{random.randrange(profile.leads)}"
    )
    business = f"b-{random.randrange(50)}"
    kind = _kind(profile, random.random())
    entities: dict[str, object] = {"product": REFUSED if kind is Kind.REJECTED else "Desk lamp"}
    if kind is Kind.SLOW:
        entities["wait_seconds"] = profile.slow_seconds
    message: dict[str, object] = {
        "processing_id": id_,
        "lead_id": lead,
        "business_id": business,
        "tenant_id": "t-1",
        "intent": {"intent": "ORDER_REQUEST", "confidence": 0.93},
        "entities": entities,
    }
    missing = profile.size - len(_encode(message)) - len(',"original_message":""')
    text = min(missing, _TEXT_AT_MOST)
    if text > 0:
        message["original_message"] = _filled(text)
    if missing > text:
        message["conversation"] = _filled(max(missing - text - len(',"conversation":""'), 0))
    value = _encode(message)
    return Sent(
        kind, id_, lead.encode(), value[: len(value) // 2] if kind is Kind.INVALID else value
    )


def _kind(profile: Profile, chance: float) -> Kind:
    for kind, share in (
        (Kind.REJECTED, profile.rejected),
        (Kind.SLOW, profile.slow),
        (Kind.INVALID, profile.invalid),
    ):
        if chance < share:
            return kind
        chance -= share
    return Kind.ORDER


def _filled(length: int) -> str:
    return (_TEXT * (length // len(_TEXT) + 1))[:length]


def _encode(message: dict[str, object]) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode()
