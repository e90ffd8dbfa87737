"""Hides what identifies a person in texts that people look at: phone numbers, e-mail addresses.

Ids are left as they are: without them nothing can be looked up. Errs on the side of hiding: a
long number or a date may be taken for a phone number.
"""

from __future__ import annotations

import re

# A local part begins where the character before cannot belong to one, so a long run without
# an @ is looked through once, not once for each of its characters.
_LOCAL = r"[^\s@<>()\[\]\"',;:]"
_EMAIL = re.compile(rf"(?<!{_LOCAL}){_LOCAL}+@{_LOCAL}+")
_PHONE = re.compile(r"(?<![\w])\+?\(?\d[\d ().\-/\u00a0]{4,}\d(?!\w)")
_FEWEST_DIGITS = 7  # shorter numbers are quantities, prices, times


def mask(text: str) -> str:
    """The text with phone numbers as ``***`` and their last two digits, and e-mail addresses
    as ``***@***``."""
    return _PHONE.sub(_phone, _EMAIL.sub("***@***", text))


def _phone(match: re.Match[str]) -> str:
    found = match.group()
    digits = [character for character in found if character.isdigit()]
    return f"***{''.join(digits[-2:])}" if len(digits) >= _FEWEST_DIGITS else found
