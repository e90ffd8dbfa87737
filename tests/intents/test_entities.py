"""How entities are read: presence, key spelling, the number grammar, constants."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamapp.intents.entities import (
    amount,
    category,
    constant,
    is_urgent,
    lookup,
    name_for_reply,
    number,
    number_for_reply,
    present,
)


@pytest.mark.parametrize("value", [None, False, "", " ", " \n\t\u00a0", {}, []])
def test_absent(value: Any) -> None:
    assert not present(value)
    assert lookup({"order_id": value}, "order_id") is None


@pytest.mark.parametrize("value", [0, 0.0, True, "x", " x ", "false", "null", [None], {"a": None}])
def test_present(value: Any) -> None:
    assert present(value)
    assert lookup({"order_id": value}, "order_id") == value


@pytest.mark.parametrize(
    ("entities", "name", "expected"),
    [
        ({"order_id": "1"}, "order_id", "1"),
        ({"orderId": "2"}, "order_id", "2"),
        ({"orderId": "2", "order_id": "1"}, "order_id", "1"),
        ({"order_id": " ", "orderId": "2"}, "order_id", "2"),
        ({"order_id": None, "orderId": []}, "order_id", None),
        ({"preferredDate": "x"}, "preferred_date", "x"),
        ({"someLongName": "x"}, "some_long_name", "x"),
        ({"orderid": "1", "OrderId": "2", "OrderID": "3"}, "order_id", None),
        ({"product": "x"}, "product", "x"),
        ({"Product": "x"}, "product", None),
        ({}, "order_id", None),
    ],
)
def test_both_spellings(entities: dict[str, Any], name: str, expected: Any) -> None:
    assert lookup(entities, name) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (100, 100),
        (0, 0),
        (-3, -3),
        (2.5, 2.5),
        (10**30 - 1, 10**30 - 1),
        (1e40, 1e40),
        ("100", 100),
        ("+5", 5),
        ("-5", -5),
        (" 100 ", 100),
        ("\n100\t", 100),
        ("1,000", 1000),
        ("1,00,000", 100_000),
        ("12,345,678", 12_345_678),
        ("1,000.5", 1000.5),
        ("2.50", 2.5),
        ("1e3", 1000),
        ("1.5E-1", 0.15),
        ("1e+3", 1000),
        ("1e40", 1e40),
        ("5 kg", 5),
        ("5kg", 5),
        ("5 кг", 5),
        ("101 units", 101),
        ("1,000 units", 1000),
        ("150+", 150),
        ("150+ units", 150),
        ("150 + ", None),
        ("150+units\nor more", 150),
        ("5 or 6", 5),
        ("5e", 5),
        ("007", 7),
        ("0", 0),
        ("9" * 30, int("9" * 30)),
        ("9" * 30 + " kg", int("9" * 30)),
        ("1e-999", 0.0),
    ],
)
def test_numbers(value: Any, expected: float | None) -> None:
    assert number(value) == expected


@pytest.mark.parametrize(
    "value",
    [
        *("10-20", "2,5", ".5", "5.", "1_000", "inf", "-inf", "nan", "Infinity", "0x10", "0X1f"),
        *("-0x1", " 0xff kg", "1,2345", "1,,000", ",100", "1,000,", "1,0000", "1 000", "1 2"),
        *("", " ", "x", "about 5", "$5", "5%", "5 %", "5/6", "--5", "+-5", "+", "five", "\u0665"),
        *("5++", "5+ 6", "5.5.5", "5_kg", "5 _", "1,000,00", "\u00b2"),
        *("9" * 31, "0" * 31, "-" + "9" * 31, "9" * 31 + " kg", "9" * 31 + ".5", "9" * 5000),
        *("1e999", "-1e999", "1e99999999999", ",".join(["1"] + ["000"] * 10)),
        *(10**30, -(10**30), 10**4000, math.inf, -math.inf, math.nan),
        *(True, False, None, [], [5], {}, {"value": 5}),
    ],
)
def test_no_numbers(value: Any) -> None:
    assert number(value) is None
    assert amount(value) is None


@pytest.mark.parametrize("value", [0, 0.0, -1, -0.5, "0", "-1", "-1,000 units", "0 kg"])
def test_an_amount_is_above_zero(value: Any) -> None:
    assert number(value) is not None
    assert amount(value) is None


@pytest.mark.parametrize("value", [1, 0.001, "0.001", "1", "101 units"])
def test_amounts(value: Any) -> None:
    assert amount(value) == number(value)


# The grammar as it is specified; only hexadecimal numbers are excepted from it.
GRAMMAR = re.compile(
    r"^\s*([+-]?(?:[0-9]{1,3}(?:,[0-9]{2,3})*,[0-9]{3}|[0-9]+)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)"
    r"(?:\+?\s*[^\W\d_].*|\+)?\s*$",
    re.DOTALL,
)


@given(st.text(st.sampled_from("0123456789,,.+-eEk _\n"), max_size=14))
def test_texts_are_read_by_the_grammar(text: str) -> None:
    match = GRAMMAR.match(text)
    expected = None if match is None else float(match[1].replace(",", ""))
    assert number(text) == (None if expected is None or math.isinf(expected) else expected)


@given(st.integers(-(10**29), 10**29))
def test_a_whole_number_in_text_is_exact(value: int) -> None:
    for text in (str(value), f"{value:,}", f" {value:+} ", f"{value} boxes"):
        read = number(text)
        assert read == value
        assert isinstance(read, int)


@given(st.text() | st.text(st.sampled_from("0123456789,.+-eE xk_\n")) | st.floats())
def test_any_value_is_a_finite_number_or_none(value: Any) -> None:
    read = number(value)
    assert read is None or math.isfinite(read)


@pytest.mark.parametrize(
    ("value", "expected"),
    [("urgent", "urgent"), (" URGENT\n", "urgent"), ("", None), (" ", None), (5, None), ([], None)],
)
def test_constants(value: Any, expected: str | None) -> None:
    assert constant(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("business_hours", "business_hours"),
        (" Business Hours ", "business_hours"),
        ("business-hours", "business_hours"),
        ("business \n - hours", "business_hours"),
        ("", None),
        (None, None),
        (7, None),
    ],
)
def test_categories(value: Any, expected: str | None) -> None:
    assert category(value) == expected


@pytest.mark.parametrize("value", ["urgent", "Immediate", " ASAP "])
def test_urgency_entity(value: str) -> None:
    assert is_urgent({"urgency": value})


@pytest.mark.parametrize("value", ["low", "not urgent", "urgently", "", None, True, 1, ["urgent"]])
def test_no_urgency_entity(value: Any) -> None:
    assert not is_urgent({"urgency": value})
    assert not is_urgent({})


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (100, "100"),
        (100.0, "100"),
        (1e3, "1000"),
        (2.5, "2.5"),
        (1234567.25, "1234567.25"),
        (10**20, "100000000000000000000"),
        (1e300, "1e+300"),
    ],
)
def test_numbers_for_people(value: float, expected: str) -> None:
    assert number_for_reply(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (" Widget\n X ", "Widget X"),
        ("w" * 100, "w" * 100),
        ("w" * 101, None),
        (" ", None),
        (7.0, "7"),
        (["Widget"], None),
        ({"name": "Widget"}, None),
        (True, None),
        (None, None),
    ],
)
def test_names_for_people(value: Any, expected: str | None) -> None:
    assert name_for_reply(value) == expected
