"""Texts for people show no phone number and no e-mail address."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamapp.observability.masking import mask


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("call +49 151 2345678 now", "call ***78 now"),
        ("call (030) 1234-567.", "call ***67."),
        ("tel:+491512345678", "tel:***78"),
        ("491512345678", "***78"),
        ("mail ann.lee+shop@example.co.uk, please", "mail ***@***, please"),
        ("<bob@example.com>", "<***@***>"),
        ("a@b and 0151 2345678", "***@*** and ***78"),
        ("1" * 60, "***11"),
    ],
)
def test_hides_what_identifies_a_person(text: str, masked: str) -> None:
    assert mask(text) == masked


@pytest.mark.parametrize(
    "text",
    [
        "100 units of Widget X",
        "at 14:30",
        "costs 1,299.00",
        "lead-12345678x",
        "LEAD_4915123456",
        "",
    ],
)
def test_leaves_the_rest(text: str) -> None:
    assert mask(text) == text


@given(
    st.text(string.ascii_letters, min_size=1),
    st.text(string.ascii_letters, min_size=1),
    st.text(string.ascii_letters + " .,"),
)
def test_no_address_survives(local: str, domain: str, rest: str) -> None:
    address = f"{local}@{domain}.com"
    assert address not in mask(f"{rest} {address} {rest}")


@pytest.mark.parametrize("unit", ["a", "1", "1 ", "a@", "@", "+(", "1-a"])
def test_long_texts_are_looked_through_once(unit: str) -> None:
    # Quadratic work would take minutes here, and the suite's time limit would end it.
    mask(unit * (1_000_000 // len(unit)) + "!")
