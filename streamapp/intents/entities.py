"""How handlers read entities: what counts as there, as a number, as a constant.

Entities come from a language model and may hold anything JSON can say. Nothing here raises:
what cannot be read is absent.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, Final

Number = int | float

URGENT: Final = frozenset({"urgent", "immediate", "asap"})  # values of the entity `urgency`
MAX_DIGITS: Final = 30  # of the whole number; a longer one is no quantity of anything
MAX_NAME_LENGTH: Final = 100  # of what a reply repeats to the customer

# A number, perhaps with a plus ("150+") and a unit or more words after it ("5 kg", "5 or 6").
# Runs of digits are possessive: giving some back never helps, and a long text would take long.
_NUMBER = re.compile(
    r"\s*+([+-]?(?:[0-9]{1,3}(?:,[0-9]{2,3})*,[0-9]{3}|[0-9]++)(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?)"
    r"(?:\+?\s*[^\W\d_].*|\+)?\s*$",
    re.DOTALL,
)
_HEXADECIMAL = re.compile(r"\s*[+-]?0[xX][0-9a-fA-F]")
_WHOLE = re.compile(r"[+-]?[0-9]+")
_SEPARATORS = re.compile(r"[\s-]+")


def present(value: Any) -> bool:
    """Whether a value says something: not null, false, blank text, ``{}`` or ``[]``."""
    if isinstance(value, str):
        return bool(value.strip())
    return value is not None and value is not False and value != {} and value != []


def lookup(entities: Mapping[str, Any], name: str) -> Any:
    """The entity of that snake-case name, or of the same in camel case; None if absent.

    Where both are present snake case wins; an absent one does not hide the other.
    """
    value = entities.get(name)
    if present(value):
        return value
    if "_" in name:
        first, *others = name.split("_")
        value = entities.get(first + "".join(word.capitalize() for word in others))
        if present(value):
            return value
    return None


def number(value: Any) -> Number | None:
    """The finite number that a value states, as JSON number or in text; None if it states none.

    A whole number of more than ``MAX_DIGITS`` digits is none.
    """
    if isinstance(value, str):
        return _number_in_text(value)
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value if abs(value) < 10**MAX_DIGITS else None
    if isinstance(value, float) and math.isfinite(value):
        return value
    return None


def _number_in_text(text: str) -> Number | None:
    match = _NUMBER.match(text)
    # The grammar would read a hexadecimal number as a zero with a unit.
    if match is None or _HEXADECIMAL.match(text):
        return None
    digits = match[1].replace(",", "")
    whole = _WHOLE.match(digits)
    assert whole is not None  # the grammar begins with digits
    if len(whole[0].lstrip("+-")) > MAX_DIGITS:
        return None
    if whole.end() == len(digits):
        return int(digits)
    result = float(digits)
    return result if math.isfinite(result) else None


def amount(value: Any) -> Number | None:
    """A quantity or volume: a number above zero, else None."""
    found = number(value)
    return found if found is not None and found > 0 else None


def constant(value: Any) -> str | None:
    """A value of a closed set (severity, urgency): trimmed, case ignored; None if no text."""
    return (value.strip().casefold() or None) if isinstance(value, str) else None


def category(value: Any) -> str | None:
    """A category: a constant in which a run of white space and hyphens is one underscore."""
    name = constant(value)
    return None if name is None else _SEPARATORS.sub("_", name)


def is_urgent(entities: Mapping[str, Any]) -> bool:
    """Whether the entity ``urgency`` asks for haste."""
    return constant(lookup(entities, "urgency")) in URGENT


def name_for_reply(value: Any) -> str | None:
    """A value as a reply may repeat it: one short line of text, or a number; else None."""
    if isinstance(value, str):
        line = " ".join(value.split())
        return line if 0 < len(line) <= MAX_NAME_LENGTH else None
    found = number(value)
    return None if found is None else number_for_reply(found)


def number_for_reply(value: Number) -> str:
    """A number as a person writes it: without decimals when it is whole."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return str(value)
