from __future__ import annotations

import pytest

from streamapp.services.excerpt import LIMIT, excerpt


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", ""),
        ("no\r\nsuch\tproduct\n", "no such product"),
        ("a\x00\x1b[31mb\u2028c", "a [31mb c"),
        ("lone \ud800 surrogate", "lone   surrogate"),
        ("caf\u00e9", "caf\u00e9"),
        ("x" * LIMIT, "x" * LIMIT),
        ("x" * (LIMIT + 1), "x" * LIMIT + "..."),
    ],
)
def test_one_short_line(text: str, shown: str) -> None:
    assert excerpt(text) == shown


def test_secrets_are_masked_and_empty_ones_ignored() -> None:
    assert excerpt("key abc, again abc and def", ("abc", "", "def")) == "key ***, again *** and ***"
