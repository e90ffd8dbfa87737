"""How words are found in a customer's text: the same rules for every handler.

Case is ignored, a run of white space counts as one space, and a word is bounded by anything but
a letter, a digit or an underscore. A word also matches with a plural ending and in the further
forms of ``FORMS``, so "stores" is "store" but "stored" is not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

# Forms of a word besides itself and its plural; each also matches with a plural ending.
FORMS: Final[dict[str, tuple[str, ...]]] = {
    "catalog": ("catalogue",),
    "open": ("opening", "opened"),
    "close": ("closing", "closed"),
    "hours": ("hour",),
    "pay": ("paying", "paid"),
    "return": ("returning", "returned"),
    "refund": ("refunded", "refundable"),
    "exchange": ("exchanged",),
    "shipping": ("shipped", "shipment"),
    "delivery": ("delivered",),
    "features": ("feature",),
    "specs": ("spec",),
    "compare": ("compared", "comparison", "comparing"),
    "urgent": ("urgently",),
}

# What stands before an urgency word that is not meant: "non-urgent", "this isn't an emergency".
_NEGATION = r"(?:not|non|isn['\u2019]?t|nothing)[ -](?:an?[ -])?"

_words = re.compile(r"\w+").findall


def _forms(keyword: str) -> tuple[str, ...]:
    """Every way of writing a keyword that counts; of a phrase, its last word takes the forms."""
    found: list[str] = []
    for word in (keyword, *FORMS.get(keyword, ())):
        found += (word, word + "s", word + "es")
        if word.endswith("y"):
            found.append(word[:-1] + "ies")
    return tuple(found)


def _bounded(forms: Iterable[str], before: str = "") -> re.Pattern[str]:
    """Any of the forms as a word of its own; group 1 is what matched of ``before``, if it did."""
    alternatives = "|".join(map(re.escape, forms))
    return re.compile(rf"(?<!\w)({before})?(?:{alternatives})(?!\w)")


class CustomerText:
    """A text made ready for matching, once for all the keywords of a handler."""

    __slots__ = ("folded", "words")

    def __init__(self, text: str) -> None:
        self.folded: Final = " ".join(text.casefold().split())
        self.words: Final = frozenset(_words(self.folded))


class Keywords:
    """A group of words and phrases of which any may stand in the text."""

    __slots__ = ("_phrases", "_words")

    def __init__(self, keywords: Iterable[str]) -> None:
        words: set[str] = set()
        phrases: list[tuple[tuple[str, ...], re.Pattern[str]]] = []
        for keyword in keywords:
            if not keyword or keyword != " ".join(keyword.casefold().split()):
                raise ValueError(f"keyword {keyword!r} must be lower case with single spaces")
            if keyword.replace("_", "").isalnum():
                words.update(_forms(keyword))
            else:
                forms = _forms(keyword)
                phrases.append((forms, _bounded(forms)))
        self._words = frozenset(words)
        self._phrases = tuple(phrases)

    def found_in(self, text: CustomerText) -> bool:
        """Whether any of them stands in the text."""
        return self.first_in(text) is not None

    def first_in(self, text: CustomerText) -> str | None:
        """One of them that stands in the text, as it is written there, always the same one."""
        if not self._words.isdisjoint(text.words):
            return min(self._words & text.words)
        for forms, pattern in self._phrases:
            # A cheap look before the costly one.
            if any(form in text.folded for form in forms):
                match = pattern.search(text.folded)
                if match is not None:
                    return match[0]
        return None


class UrgencyWords:
    """Words that make a message urgent, unless they are negated where they stand."""

    __slots__ = ("_keywords", "_pattern")

    def __init__(self, words: Iterable[str]) -> None:
        words = tuple(words)
        self._keywords = Keywords(words)
        self._pattern = _bounded((form for word in words for form in _forms(word)), _NEGATION)

    def found_in(self, text: CustomerText) -> bool:
        """Whether any of them stands in the text and is meant."""
        return self.first_in(text) is not None

    def first_in(self, text: CustomerText) -> str | None:
        """The first of them that stands in the text and is meant."""
        if not self._keywords.found_in(text):
            return None
        matches = self._pattern.finditer(text.folded)
        return next((match[0] for match in matches if match[1] is None), None)
