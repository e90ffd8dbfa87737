"""What may be told of a service's answer in an error text."""

from __future__ import annotations

import re
from collections.abc import Iterable

LIMIT = 200  # characters

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")


def excerpt(text: str, secrets: Iterable[str] = ()) -> str:
    """The beginning of ``text`` on one line, without the ``secrets`` that it may echo."""
    for secret in secrets:
        if secret:
            text = text.replace(secret, "***")
    text = _UNPRINTABLE.sub(" ", text).strip()
    return text if len(text) <= LIMIT else text[:LIMIT] + "..."
