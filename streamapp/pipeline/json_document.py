"""A JSON document under the bounds of the input contract.

One pass of the C parser, then checks whose price is paid only by documents that could break a
rule: nesting is measured when there are enough brackets for it, texts are searched when there
is a ``\\u`` escape (raw NUL bytes and raw surrogates are refused by the parser itself).
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

import orjson

MAX_NESTING = 64

# What orjson and a 64-bit reader can hold.
_SMALLEST, _LARGEST = -(2**63), 2**64 - 1
_LONGEST = 20  # no longer text fits that range
_NUL_ESCAPE = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


class NotJson(ValueError):
    """The bytes are not one JSON document in UTF-8; the message says how."""


class BigNumber(str):
    """A JSON number beyond 64 bits, as the text it was written in.

    As text it stays exact, is serialisable by everybody and costs nothing however long it is;
    a reader of numbers applies the rules for numbers in text to it. Being no plain ``str``, it
    does not pass for a text where the contract wants one.
    """

    __slots__ = ()


def _integer(text: str) -> int | BigNumber:
    if len(text) <= _LONGEST and _SMALLEST <= (number := int(text)) <= _LARGEST:
        return number
    return BigNumber(text)


def _fraction(text: str) -> float | BigNumber:
    number = float(text)
    return number if math.isfinite(number) else BigNumber(text)


def _constant(text: str) -> NoReturn:
    raise NotJson(f"{text} is no JSON")


_parse = json.JSONDecoder(
    parse_int=_integer, parse_float=_fraction, parse_constant=_constant
).decode


def load(value: bytes) -> tuple[Any, str | None]:
    """The parsed document and, when it breaks a bound of the contract, which one.

    A document that breaks a bound is returned all the same, so that it can be named. Of
    duplicate keys the last counts. Raises ``NotJson``.
    """
    try:
        document = _parse(value.decode())
    except UnicodeDecodeError:
        raise NotJson("the value is not UTF-8") from None
    except RecursionError:
        raise NotJson(f"nested deeper than {MAX_NESTING}") from None
    except json.JSONDecodeError as error:
        raise NotJson(f"the value is not JSON: {error.msg} at {error.pos}") from None
    return document, _broken_bound(value, document)


def _broken_bound(value: bytes, document: Any) -> str | None:
    if value.count(b"[") + value.count(b"{") > MAX_NESTING and _nested_too_deep(document):
        return f"nested deeper than {MAX_NESTING}"
    if b"\\u" in value:
        if _NUL_ESCAPE.search(value):
            return "contains a NUL character"
        try:
            orjson.dumps(document)
        except TypeError:  # the one thing it cannot write in a tree of bounded numbers and depth
            return "contains a lone surrogate"
    return None


def _nested_too_deep(document: Any) -> bool:
    level = [document]
    for _ in range(MAX_NESTING):
        level = [
            child
            for node in level
            for child in (node.values() if type(node) is dict else node)
            if type(child) is dict or type(child) is list
        ]
        if not level:
            return False
    return True


def canonical(value: Any) -> bytes:
    """The bytes of a loaded value that are the same whatever its key order and white space."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
