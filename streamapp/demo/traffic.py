"""Sample traffic: the same for the same seed, with everything in it that can happen."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import Any

import orjson

from streamapp.demo.services import DISCONTINUED
from streamapp.pipeline.messages import RESULT

MINIMUM = 20  # of a sample that has every kind in it

BUSINESSES = {"business-1": "tenant-1", "business-2": "tenant-1", "business-3": "tenant-2"}
_LEADS = 60
_STRANGERS = 20  # leads that the CRM does not know
_STATUSES = ("new", "contacted", "qualified", "negotiation")
_PRODUCTS = ("Desk lamp", "Floor lamp", "Office chair", "Standing desk", "Bookshelf")
_CATEGORIES = ("Lighting", "Chairs", "Standing desks")
_FIRST_TIMESTAMP = 1_750_000_000  # any; a sample must not depend on the clock


class Kind(StrEnum):
    """What a record stands for, and so what becomes of it."""

    ORDER_REQUEST = "order_request"
    COMPLAINT = "complaint"
    PRICING_INQUIRY = "pricing_inquiry"
    UNKNOWN = "unknown"
    SCHEDULE_CALL = "schedule_call"
    AVAILABILITY_INQUIRY = "availability_inquiry"
    GENERAL_INQUIRY = "general_inquiry"
    DUPLICATE = "duplicate"  # the same bytes once more, right after
    LATE_DUPLICATE = "late_duplicate"  # the same, when much else has come between
    NOT_JSON = "not_json"
    WRONG_KEY = "wrong_key"
    UNKNOWN_TENANT = "unknown_tenant"
    REJECTED_ORDER = "rejected_order"  # the order service refuses it: the saga compensates


_WEIGHTS = {
    Kind.ORDER_REQUEST: 30,
    Kind.COMPLAINT: 15,
    Kind.PRICING_INQUIRY: 15,
    Kind.UNKNOWN: 6,
    Kind.SCHEDULE_CALL: 5,
    Kind.AVAILABILITY_INQUIRY: 5,
    Kind.GENERAL_INQUIRY: 6,
    Kind.DUPLICATE: 6,
    Kind.LATE_DUPLICATE: 5,
    Kind.NOT_JSON: 1,
    Kind.WRONG_KEY: 1,
    Kind.UNKNOWN_TENANT: 2,
    Kind.REJECTED_ORDER: 3,
}
DUPLICATES = frozenset({Kind.DUPLICATE, Kind.LATE_DUPLICATE})
DEAD_LETTERS = frozenset({Kind.NOT_JSON, Kind.WRONG_KEY, Kind.UNKNOWN_TENANT, Kind.REJECTED_ORDER})

_TEXTS = {
    Kind.ORDER_REQUEST: ("I would like to order this.", "Please send me some of these."),
    Kind.COMPLAINT: ("It arrived broken.", "I need this fixed immediately!", "This is not mine."),
    Kind.PRICING_INQUIRY: ("What does it cost?", "Could I have your price list?"),
    Kind.UNKNOWN: ("Hm.", "\N{THUMBS UP SIGN}", "This is an emergency, call me"),
    Kind.SCHEDULE_CALL: ("Can we talk on Tuesday?",),
    Kind.AVAILABILITY_INQUIRY: ("Do you have it in stock?",),
    Kind.GENERAL_INQUIRY: ("When are you open?", "Wo finde ich Sie? Gr\u00fc\u00dfe"),
}


@dataclass(frozen=True, slots=True)
class Sample:
    """A record for the input topic."""

    key: bytes
    value: bytes
    headers: tuple[tuple[str, bytes], ...]
    kind: Kind


@dataclass(frozen=True, slots=True)
class Lead:
    """A row of the CRM's table ``leads``."""

    lead_id: str
    business_id: str
    tenant_id: str
    status: str


def leads() -> list[Lead]:
    """The leads that the CRM knows."""
    return [_lead(number) for number in range(1, _LEADS + 1)]


def sample(n: int, seed: int) -> list[Sample]:
    """``n`` records in the order to send them in; at least one of each kind from ``MINIMUM`` on.

    Samples of different seeds have no processing id in common.
    """
    random = Random(seed)  # noqa: S311
    kinds = list(Kind) if n >= MINIMUM else [Kind.ORDER_REQUEST][:n]
    kinds += random.choices(list(_WEIGHTS), list(_WEIGHTS.values()), k=n - len(kinds))
    originals = [kind for kind in kinds if kind not in DUPLICATES]
    random.shuffle(originals)
    maker = _Maker(random, seed)
    # What stays together: a record, and its repetitions that follow at once.
    groups = [[maker.make(kind)] for kind in originals]
    repeatable = [group for group in groups if group[0].kind not in DEAD_LETTERS]
    for _ in range(kinds.count(Kind.DUPLICATE)):
        group = random.choice(repeatable)
        group.append(_again(group[0], Kind.DUPLICATE))
    early = repeatable[: max(1, len(repeatable) // 2)]
    for _ in range(kinds.count(Kind.LATE_DUPLICATE)):
        late = _again(random.choice(early)[0], Kind.LATE_DUPLICATE)
        groups.insert(random.randint(len(groups) * 3 // 4 + 1, len(groups)), [late])
    return [record for group in groups for record in group]


def _again(original: Sample, kind: Kind) -> Sample:
    return Sample(original.key, original.value, original.headers, kind)


def _lead(number: int) -> Lead:
    business = f"business-{number % len(BUSINESSES) + 1}"
    status = _STATUSES[number % len(_STATUSES)]
    return Lead(f"lead-{number:04d}", business, BUSINESSES[business], status)


class _Maker:
    """Makes records; one draw of the random numbers after the other."""

    def __init__(self, random: Random, seed: int) -> None:
        self._random = random
        self._seed = seed
        self._number = 0

    def make(self, kind: Kind) -> Sample:
        random = self._random
        self._number += 1
        known = kind is not Kind.UNKNOWN_TENANT and random.random() < 0.9
        number = random.randint(1, _LEADS) if known else _LEADS + random.randint(1, _STRANGERS)
        lead = _lead(number)
        result = self._result(kind, lead)
        # A lead that is not in the table is taken at the message's word, if it has one.
        if kind is not Kind.UNKNOWN_TENANT and (not known or random.random() < 0.5):
            result["tenant_id"] = lead.tenant_id
        document = self._in_envelope(result) if random.random() < 0.5 else result
        value = orjson.dumps(document)
        key = lead.lead_id.encode()
        if kind is Kind.NOT_JSON:
            value = value[: len(value) // 2]
        elif kind is Kind.WRONG_KEY:
            key = _lead(number % _LEADS + 1).lead_id.encode()
        return Sample(key, value, self._headers(), kind)

    def _result(self, kind: Kind, lead: Lead) -> dict[str, Any]:
        random = self._random
        meant = kind if kind in _TEXTS else Kind.ORDER_REQUEST
        text = random.choice(_TEXTS[meant])
        return {
            "processing_id": f"message-{self._seed}-{self._number:06d}",
            "lead_id": lead.lead_id,
            "business_id": lead.business_id,
            "intent": {"intent": meant.upper(), "confidence": self._confidence(kind)},
            "entities": self._entities(kind, meant),
            "suggested_actions": random.choice(([], ["assign_to_sales"])),
            "original_message": text,
            "processing_time_ms": random.randint(150, 2500),
            "source": random.choice(("whatsapp", "whatsapp", "email", "web")),
            "reply_to": f"reply-{lead.lead_id}",
        }

    def _confidence(self, kind: Kind) -> float:
        if kind is Kind.REJECTED_ORDER:
            return 0.95
        ranges = ((0.2, 0.49),) if kind is Kind.UNKNOWN else ((0.5, 0.79), (0.81, 0.99))
        return round(self._random.uniform(*self._random.choice(ranges)), 2)

    def _entities(self, kind: Kind, meant: Kind) -> dict[str, Any]:
        random = self._random
        if kind is Kind.REJECTED_ORDER:
            return {"product": DISCONTINUED, "quantity": random.randint(1, 5)}
        if meant is Kind.ORDER_REQUEST:
            entities: dict[str, Any] = {
                "product": random.choice(_PRODUCTS),
                "quantity": random.choice((1, 3, "5 pieces", 12)),
            }
            if random.random() < 0.2:
                entities["urgency"] = "urgent"
            return entities
        if meant is Kind.COMPLAINT:
            return {
                "severity": random.choice(("low", "normal", "critical")),
                "category": "delivery",
                "orderId": f"order-{random.randint(1, 999):06d}",
            }
        if meant is Kind.PRICING_INQUIRY:
            return random.choice(
                (
                    {},
                    {"category": random.choice(_CATEGORIES)},
                    {"product": random.choice(_PRODUCTS), "volume": random.choice((10, "150+"))},
                )
            )
        if meant is Kind.AVAILABILITY_INQUIRY:
            return {
                "product": random.choice(_PRODUCTS),
                "quantity": random.choice((2, "10 pieces")),
            }
        if meant is Kind.SCHEDULE_CALL:
            return random.choice(({}, {"preferred_date": "tuesday", "preferredTime": "10:30"}))
        return {}

    def _in_envelope(self, result: dict[str, Any]) -> dict[str, Any]:
        return {
            "event_id": f"event-{self._seed}-{self._number:06d}",
            "event_type": RESULT,
            "timestamp": _FIRST_TIMESTAMP + self._number,
            "payload": result,
        }

    def _headers(self) -> tuple[tuple[str, bytes], ...]:
        headers = [("content-type", b"application/json")]
        if self._random.random() < 0.5:
            trace, span = self._random.getrandbits(128) | 1, self._random.getrandbits(64) | 1
            headers.append(("traceparent", f"00-{trace:032x}-{span:016x}-01".encode()))
        return tuple(headers)
