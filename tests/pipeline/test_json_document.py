"""The parser's own promises, beyond what the messages show."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamapp.pipeline.json_document import BigNumber, NotJson, canonical, load

trees = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=15,
)


def has_nul(tree: object) -> bool:
    if isinstance(tree, str):
        return "\0" in tree
    if isinstance(tree, list):
        return any(map(has_nul, tree))
    return isinstance(tree, dict) and any(has_nul(k) or has_nul(v) for k, v in tree.items())


@given(trees, st.booleans())
def test_a_tree_comes_back_and_only_a_nul_is_objected_to(tree: object, ascii_only: bool) -> None:
    document, broken = load(json.dumps(tree, ensure_ascii=ascii_only).encode())
    assert document == tree
    assert broken == ("contains a NUL character" if has_nul(tree) else None)


@given(st.text(st.sampled_from('\\u0nN\0"a'), max_size=12))
def test_nul_is_told_from_what_looks_like_it(text: str) -> None:
    _, broken = load(json.dumps([text]).encode())
    assert (broken is not None) == ("\0" in text)


@pytest.mark.parametrize("text", ["18446744073709551616", "-9223372036854775809", "1e999"])
def test_a_big_number_is_its_text_but_no_plain_one(text: str) -> None:
    document, broken = load(text.encode())
    assert broken is None
    assert document == text
    assert type(document) is BigNumber


def test_constants_are_refused_wherever_they_stand() -> None:
    for text in (b"NaN", b"[1, Infinity]", b'{"a": -Infinity}'):
        with pytest.raises(NotJson, match="is no JSON"):
            load(text)


def test_canonical_bytes_ignore_key_order_at_every_level() -> None:
    assert canonical({"b": [{"d": 1, "c": 2}], "a": 0}) == b'{"a":0,"b":[{"c":2,"d":1}]}'
