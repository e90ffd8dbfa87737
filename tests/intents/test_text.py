"""The text rules: where a word begins and ends, its forms, negated urgency."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamapp.intents.text import FORMS, CustomerText, Keywords, UrgencyWords

KEYWORDS = (
    *("product", "item", "catalog", "service", "offering", "what do you do", "hours", "open"),
    *("close", "timing", "location", "address", "where", "store", "contact", "phone", "email"),
    *("reach", "return", "refund", "exchange", "shipping", "delivery", "courier", "payment"),
    *("pay", "credit card", "cash", "warranty", "guarantee", "coverage", "specification", "specs"),
    *("technical", "features", "compare", "difference", "versus", "vs"),
)
URGENCY = ("urgent", "asap", "immediately", "emergency", "right now", "today", "quickly")


def found(keyword: str, text: str) -> bool:
    return Keywords((keyword,)).found_in(CustomerText(text))


def urgent(text: str) -> bool:
    return UrgencyWords(URGENCY).found_in(CustomerText(text))


@pytest.mark.parametrize("keyword", [*KEYWORDS, *URGENCY])
def test_a_keyword_stands_alone_and_inside_a_sentence(keyword: str) -> None:
    for text in (
        keyword,
        keyword.upper(),
        keyword.title(),
        f"  {keyword}  ",
        f"well, {keyword}?",
        f"({keyword})",
        f"a-{keyword}-b",
        f"'{keyword}'s",
        f"{keyword}s",
        keyword.replace(" ", " \n\t "),
        keyword.replace(" ", "\u00a0"),
    ):
        assert found(keyword, text), text


@pytest.mark.parametrize("keyword", [*KEYWORDS, *URGENCY])
@pytest.mark.parametrize("glue", ["x", "7", "_", "é", "ж", "語"])
def test_a_letter_digit_or_underscore_beside_it_is_another_word(keyword: str, glue: str) -> None:
    assert not found(keyword, f"{glue}{keyword}")
    assert not found(keyword, f"{keyword}{glue}")
    assert found(keyword, f"{glue}{keyword} {keyword}")


@pytest.mark.parametrize(
    ("keyword", "form"),
    [
        ("store", "stores"),
        ("address", "addresses"),
        ("delivery", "deliveries"),
        ("warranty", "warranties"),
        ("emergency", "emergencies"),
        ("credit card", "credit cards"),
        ("catalog", "catalogue"),
        ("catalog", "catalogues"),
        ("open", "opening"),
        ("open", "openings"),
        ("open", "opened"),
        ("close", "closing"),
        ("close", "closings"),
        ("close", "closed"),
        ("hours", "hour"),
        ("pay", "paying"),
        ("pay", "paid"),
        ("return", "returning"),
        ("return", "returned"),
        ("refund", "refunded"),
        ("refund", "refundable"),
        ("refund", "refundables"),
        ("exchange", "exchanged"),
        ("shipping", "shipped"),
        ("shipping", "shipment"),
        ("shipping", "shipments"),
        ("delivery", "delivered"),
        ("features", "feature"),
        ("specs", "spec"),
        ("compare", "compared"),
        ("compare", "comparison"),
        ("compare", "comparisons"),
        ("compare", "comparing"),
        ("urgent", "urgently"),
    ],
)
def test_plural_and_further_forms(keyword: str, form: str) -> None:
    assert found(keyword, f"about {form.upper()}!")


def test_the_table_has_no_forms_beyond_the_specified() -> None:
    assert {form for forms in FORMS.values() for form in forms} == {
        *("catalogue", "opening", "opened", "closing", "closed", "hour", "paying", "paid"),
        *("returning", "returned", "refunded", "refundable", "exchanged", "shipped", "shipment"),
        *("delivered", "feature", "spec", "compared", "comparison", "comparing", "urgently"),
    }


@pytest.mark.parametrize(
    ("keyword", "text"),
    [
        ("store", "stored"),
        ("store", "storing"),
        ("store", "restore"),
        ("open", "opener"),
        ("location", "located"),
        ("service", "serviced"),
        ("exchange", "exchanging"),
        ("pay", "payment"),
        ("delivery", "deliver"),
        ("warranty", "warrant"),
        ("credit card", "credit-card"),
        ("credit card", "credit, card"),
        ("credit card", "creditcard"),
        ("what do you do", "what do you"),
        ("store", ""),
    ],
)
def test_what_is_no_form(keyword: str, text: str) -> None:
    assert not found(keyword, text)


def test_any_keyword_of_a_group_will_do() -> None:
    group = Keywords(("payment", "credit card", "cash"))
    for text in ("Cash?", "my credit cards", "payments"):
        assert group.found_in(CustomerText(text))
    assert not group.found_in(CustomerText("a credit for your card"))


def test_case_is_folded_not_just_lowered() -> None:
    assert found("adresse strasse", "Adresse Straße")


@pytest.mark.parametrize("keyword", ["", "Open", " open", "credit  card"])
def test_a_keyword_that_could_never_match_is_refused(keyword: str) -> None:
    with pytest.raises(ValueError, match="keyword"):
        Keywords((keyword,))


@pytest.mark.parametrize(
    "text",
    [
        "urgent",
        "URGENT!!!",
        "this is urgent",
        "urgently needed",
        "several emergencies",
        "right  now",
        "right\nnow",
        "today's order",
        "asap.",
        "cannot wait, urgent",
        "is it not? urgent",
        "not: urgent",
        "not  - urgent",
        "not very urgent",
        "not the emergency",
        "nothing is urgent",
        "knot urgent",
        "cannot urgent",
        "no urgent",
        "not urgent before, urgent now",
        "urgent, not urgent",
        "isn t urgent",
        "noturgent urgent",
    ],
)
def test_urgent(text: str) -> None:
    assert urgent(text)


@pytest.mark.parametrize("word", ["urgent", "URGENTLY", "emergency", "emergencies", "right now"])
@pytest.mark.parametrize(
    "before", ["not", "Non", "isn't", "isn\u2019t", "ISN'T", "isnt", "nothing", "is not", "(not"]
)
@pytest.mark.parametrize("between", [" ", "-", "   ", "\n", " a ", " an ", "-a-", " an-"])
def test_negated_urgency_does_not_count(word: str, before: str, between: str) -> None:
    assert not urgent(f"it {before}{between}{word} at all")


@pytest.mark.parametrize("text", ["", "insurgent", "urgency", "urgentx", "non-urgent, not today"])
def test_not_urgent(text: str) -> None:
    assert not urgent(text)


@given(st.text(), st.sampled_from(KEYWORDS), st.text())
def test_a_keyword_between_spaces_is_found_in_any_text(before: str, word: str, after: str) -> None:
    assert found(word, f"{before} {word} {after}")


@given(st.text(max_size=30))
def test_case_and_width_of_white_space_never_matter(text: str) -> None:
    for keyword in ("open", "credit card"):
        assert found(keyword, text) == found(keyword, text.replace(" ", " \t\n "))
        assert found(keyword, f"{text} {keyword.upper()}")
