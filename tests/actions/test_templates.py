"""Templates of businesses: what they can say, and that none can do harm, however it is written."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamapp.actions.templates import (
    MAX_TEXT,
    MAX_TURNS,
    TemplateError,
    check,
    is_template,
    render,
)

VALUES: dict[str, Any] = {
    "business": {"name": "Der Laden"},
    "entities": {"product": "Lamp", "quantity": 3.0, "items": [1, 2], "note": "a\r\nb\x07"},
    "results": {"prices": {"rows": [{"name": "A", "price": 1.5}, {"name": "B", "price": 2}]}},
    "default": "plain",
}


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("{{ business.name }}: {{ entities.quantity * 2 }}", "Der Laden: 6"),
        ("{{ entities.product|upper }} {{ entities['items'][1] }}", "LAMP 2"),
        ("{{ default }} and more", "plain and more"),
        ("{% if entities.quantity > 2 %}many{% else %}few{% endif %}", "many"),
        (
            "{% for r in results.prices.rows %}{{ r.name }} {{ r.price|decimals }}"
            "{% if not loop.last %}, {% endif %}{% endfor %}",
            "A 1.50, B 2.00",
        ),
        ("{{ results.stock.left|default('some') }}", "some"),
        ("{% if results.stock is defined %}y{% else %}n{% endif %}", "n"),
        ("{{ entities['items']|join('-') }}", "1-2"),
        ("{{ entities.note }}", "a b"),  # one line, nothing that steers
        ("{% for k, v in results.prices.rows[0]|items %}{{ k }}={{ v }};{% endfor %}",
         "name=A;price=1.5;"),
        ("{{ 'a' + 'b' }}{# a remark #}", "ab"),
    ],
)  # fmt: skip
def test_what_a_template_can_say(text: str, made: str) -> None:
    check(text)
    assert render(text, VALUES) == made


def test_keys_come_in_an_order_of_their_own() -> None:
    """The database gives them back in another order than the service gave them."""
    text = "{% for k, v in results|items %}{{ k }}{% endfor %}"
    assert render(text, {"results": {"b": 1, "a": 2, "cc": 3}}) == "abcc"


@pytest.mark.parametrize(
    "text",
    [
        "{{ entities.items() }}",
        "{{ range(10**9) }}",
        "{{ lipsum() }}",
        "{{ cycler }}",
        "{{ self }}",
        "{% set a = 'aa' %}{{ a }}",
        "{% set a %}x{% endset %}",
        "{% macro a() %}{% endmacro %}",
        "{% include 'x' %}",
        "{% import 'x' as y %}",
        "{% extends 'x' %}",
        "{% block a %}{% endblock %}",
        "{% filter upper %}{% endfilter %}",
        "{{ 9 ** 9 ** 9 }}",
        "{{ 'a' ~ 'a' }}",
        "{{ x }}",
        "{{ _turns }}",
        "{{ entities|pprint }}",
        "{{ 1|center(99999999) }}",
        "{{ '%d'|format(1) }}",
        "{{ 1.5|round(999999999, 'ceil') }}",
        "{{ entities['items']|map('upper') }}",
        "{% for a in entities['items'] recursive %}{% endfor %}",
        "{% for a in default %}{% for b in default %}{% for c in default %}{% endfor %}{% endfor %}"
        "{% endfor %}",
        "{{",
        "{% if %}",
        "{% endfor %}",
        "{{ " + "(" * 1000 + "1" + ")" * 1000 + " }}",
        "{{ " + "not " * 900 + "1 }}",
        "x" * MAX_TEXT + "{{ 1 }}",
    ],
)
def test_what_no_template_may_have_is_refused_before_it_is_used(text: str) -> None:
    with pytest.raises(TemplateError):
        check(text)
    with pytest.raises(TemplateError):
        render(text, VALUES)


@pytest.mark.parametrize(
    "text",
    [
        "{{ results.stock.left }}",
        "{{ entities.__class__.__mro__ }}",
        "{{ ''.__class__ }}",
        "{{ results.stock }}",
        "{{ entities }}",
        "{{ none }}",
        "{{ true }}",
        "{{ 'x' * 99999999 }}",
        "{{ '%99999999d' % 1 }}",
        "{{ 1 // 0 }}",
        "{{ 1 + 'a' }}",
        "{{ -entities.product }}",
        "{{ entities.product.upper }}",
        "{{ entities['items'].append }}",
        "{{ loop }}",
        "{{ 1|decimals(99) }}",
        "{{ entities.product|int|decimals('x') }}",
        "{% for x in entities.product %}{{ x }}{% endfor %}",
        "{% for x in results.stock %}{{ x }}{% endfor %}",
        "{% for a, b in entities['items'] %}{% endfor %}",
    ],
)
def test_what_fails_with_its_values_fails_as_a_template(text: str) -> None:
    with pytest.raises(TemplateError) as failed:
        render(text, VALUES)
    assert "Lamp" not in str(failed.value), "customers' words are no part of errors"


def test_a_text_that_is_too_long_ends_in_time() -> None:
    text = "{{ entities.a }}" * 200
    with pytest.raises(TemplateError, match=f"more than {MAX_TEXT}"):
        render(text, {"entities": {"a": "x" * 1_000_000}})
    with pytest.raises(TemplateError, match="more than"):
        render("{{ entities.a|join(entities.b) }}", {"entities": {"a": [1] * 9, "b": "x" * 1000}})


def test_loops_turn_so_many_times_together_and_no_more() -> None:
    nested = "{% for a in entities.a %}{% for b in entities.a %}.{% endfor %}{% endfor %}"
    rows = list(range(13))
    assert len(render(nested, {"entities": {"a": rows}})) == 13 * 13
    with pytest.raises(TemplateError, match=f"more than {MAX_TURNS} times"):
        render(nested, {"entities": {"a": [*rows, 1]}})
    flat = "{% for a in entities.a %}.{% endfor %}"
    assert len(render(flat * 2, {"entities": {"a": [1] * (MAX_TURNS // 2)}})) == MAX_TURNS
    with pytest.raises(TemplateError):
        render(flat * 2, {"entities": {"a": [1] * (MAX_TURNS // 2 + 1)}})


def test_large_values_are_cut_before_a_template_sees_them() -> None:
    deep: Any = "x"
    for _ in range(10_000):
        deep = {"a": deep, "b": deep}  # beyond all bounds, if it were followed
    entities = {"deep": deep, "long": "y" * 10_000_000, "rows": list(range(100_000))}
    assert render("{{ entities.long|length }}", {"entities": entities}) == "1000"


JINJA = st.lists(
    st.sampled_from(
        [*"abx.|()[]'\" 019+-*/%<>=,\n", "{{", "}}", "{%", "%}", "{#", "#}", " for ", " in ",
         " if ", "entities", "results", " endif ", " endfor ", " else ", "default", "join", "\x00",
         " set ", "loop", "é", " is ", "defined", " not "]
    ),
    max_size=40,
).map("".join)  # fmt: skip


@given(JINJA)
def test_whatever_is_written_gives_a_text_or_a_template_error(text: str) -> None:
    try:
        check(text)
        made = render(text, VALUES)
    except TemplateError:
        return
    assert len(made) <= MAX_TEXT


def test_only_marks_make_a_template() -> None:
    assert not is_template("100 % {sic} }} #}")
    assert all(is_template(mark) for mark in ("{{ x }}", "{% x %}", "{# x #}"))
