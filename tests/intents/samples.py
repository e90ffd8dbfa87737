"""Messages with everything odd in them that the tables speak of."""

from __future__ import annotations

import math
from random import Random
from typing import Any

from tests.intents.model import FURTHER_FORMS, GENERAL, GENERAL_URGENCY, HANDLERS, Given

_CONFIDENCES = (
    0.0,
    0.3,
    math.nextafter(0.5, 0),
    0.5,
    math.nextafter(0.5, 1),
    0.7,
    math.nextafter(0.8, 0),
    0.8,
    math.nextafter(0.8, 1),
    0.95,
    1.0,
)
_ABSENT: tuple[Any, ...] = (None, False, "", "  ", "\n\t", {}, [])
_NAMES: tuple[Any, ...] = ("Widget X", " x ", 7, 0, 0.5, True, ["a"], {"a": None}, "null", "0")
_NUMBERS: tuple[Any, ...] = (
    *(0, 1, 100, 101, -5, 100.0, 100.5, 101.5, 1e3, 10**29, 10**30, True),
    *("100", "101", "1,000", "1,00,000", "1e3", "5 kg", "101 units", "150+", "150+ units"),
    *("5 or 6", "10-20", "2,5", ".5", "1_000", "inf", "nan", "0x10", "0 x 10", "1e999", "-3"),
    *("+200", " 200\n", "200\nboxes", "9" * 30, "9" * 31, "12,34,567", "1,0000", "\u0663", "1e-3"),
    *(["100"], {"n": 100}, "a few", "100%", "100.", "100.5.5", "1e5kg", "100 _"),
)
_URGENCIES: tuple[Any, ...] = (
    *("urgent", "Immediate", " ASAP ", "low", "urgently", "not urgent", 1, True, ["urgent"]),
)
_SEVERITIES: tuple[Any, ...] = ("critical", " URGENT\n", "high", "Critical!", 5, ["critical"])
_CATEGORIES: tuple[Any, ...] = (
    *GENERAL,
    *("Business Hours", " business-hours ", "PAYMENT - METHODS", "return  policy", "weather", "-"),
    *("-business hours", "business hours-", 7, ["business_hours"], {"a": 1}, True),
)
_WORDS = (
    *(word for row in GENERAL.values() for word in row[0]),
    *(form for more in FURTHER_FORMS.values() for form in more),
    *GENERAL_URGENCY,
    *("urgent", "urgently", "immediately", "emergency") * 3,
    *("stored", "payable", "reopen", "nonurgent", "vsx", "emergencies", "deliveries", "catalogues"),
    *("hello", "the", "1", "_", "\u00e9", "Stra\u00dfe", "\u0130"),
)
_NEGATIONS = ("not", "non", "isn't", "isn\u2019t", "isnt", "nothing", "an", "a", "is", "knot", "no")
_GAPS = (" ", " ", " ", "-", "  ", "\n", ", ", ".", "_", "", "\u00a0", "/", " a ", "-an-")
_ENDINGS = ("", "", "", "s", "es", "ies", "ed", "'s", "?", "!")


def sample(random: Random) -> Given:
    """One message; the same for the same state of ``random``."""
    intent = random.choice((*HANDLERS, *HANDLERS, *HANDLERS, "UNKNOWN", "NOBODYS", "order_request"))
    return Given(intent, random.choice(_CONFIDENCES), _entities(random), _text(random))


def _entities(random: Random) -> dict[str, Any]:
    entities: dict[str, Any] = {}
    for names, values in (
        (("product",), _NAMES),
        (("quantity",), _NUMBERS),
        (("volume",), _NUMBERS),
        (("urgency",), _URGENCIES),
        (("severity",), _SEVERITIES),
        (("category",), _CATEGORIES),
        (("topic", "location", "date", "purpose"), _NAMES),
        (("order_id", "orderId"), _NAMES),
        (("preferred_date", "preferredDate"), ("2026-12-01", "tomorrow", *_NAMES)),
        (("preferred_time", "preferredTime"), ("15:00", "noon", *_NAMES)),
        (("Product", "ORDER_ID", "preferred-date"), _NAMES),
    ):
        for name in names:
            draw = random.random()
            if draw < 0.35:
                entities[name] = random.choice(values)
            elif draw < 0.5:
                entities[name] = random.choice(_ABSENT)
    return entities


def _text(random: Random) -> str:
    parts = []
    for _ in range(random.choice((0, 1, 2, 3, 5))):
        if random.random() < 0.4:
            parts += [random.choice(_NEGATIONS), random.choice(_GAPS)]
        word = random.choice(_WORDS)
        if random.random() < 0.3:
            word = random.choice((word.upper(), word.title()))
        parts += [word, random.choice(_ENDINGS), random.choice(_GAPS)]
    return "".join(parts)
