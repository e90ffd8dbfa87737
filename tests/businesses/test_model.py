"""What a business may set: errors name the field, secrets show nowhere."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamapp.actions.base import Capabilities
from streamapp.actions.capabilities import SLACK
from streamapp.businesses.business import business_of, working_hours
from streamapp.businesses.model import (
    MASK,
    InvalidBusiness,
    document_of,
    parse,
    with_secrets_of,
)

HOOK = "https://hooks.slack.example/services/T0/B0/very-secret"
FULL: dict[str, Any] = {
    "name": "Der Laden",
    "language": "DE",
    "timezone": "Europe/Berlin",
    "texts": {"faq": "Fragen?", "price_list": {"de_AT": "Preise: {{ results.a.b }}"}},
    "channels": {"sales_team": {"email": " sales@shop.example ", "slack_webhook_url": HOOK}},
    "slack_webhook_url": HOOK + "-for-all",
    "working_hours": {"monday": ["09:00-12:00", "12:00-24:00"]},
    "team_names": {"sales_team": "Vertrieb"},
    "services": {"order": {"url": "http://orders.shop.example/", "token": "hunter2"}},
    "actions": {"notify_sales": False, "send_faq": True},
    "apology": False,
    "suggested_response": True,
}


def problems(document: Any, **known: Any) -> dict[str, str]:
    with pytest.raises(InvalidBusiness) as refused:
        parse(document, **known)
    return dict(refused.value.problems)


def test_all_of_it() -> None:
    settings = parse(FULL)
    assert settings.language == "de"
    assert settings.texts == {
        "faq": {"de": "Fragen?"},
        "price_list": {"de-at": "Preise: {{ results.a.b }}"},
    }
    assert settings.channels["sales_team"].email == "sales@shop.example"
    assert settings.services["order"].url == "http://orders.shop.example"


def test_nothing_is_the_defaults() -> None:
    defaults = Capabilities(texts={"faq": "x"}, timezone="Asia/Kolkata", suggested_response=True)
    found = business_of(parse({}), defaults)
    assert found.capabilities.texts == defaults.texts
    assert found.capabilities.timezone == "Asia/Kolkata"
    assert found.capabilities.suggested_response is True
    assert found.capabilities.apologises is True
    assert (found.services, found.webhooks) == ({}, {})


@pytest.mark.parametrize(
    ("changes", "field", "text"),
    [
        ({"nonsense": 1}, "nonsense", "not permitted"),
        ({"name": "two\nlines"}, "name", "on one line"),
        ({"language": "english!"}, "language", "code of a language"),
        ({"timezone": "Mars/Olympus"}, "timezone", "Europe/Berlin"),
        ({"timezone": "../../etc/passwd"}, "timezone", "time zone"),
        ({"texts": {"faqs": "x"}}, "texts", "'faqs' is no topic"),
        ({"texts": {"faq": {"de": ""}}}, "texts.faq.de", "1 to 4096"),
        ({"texts": {"faq": {"de": "x" * 4097}}}, "texts.faq.de", "1 to 4096"),
        ({"texts": {"faq": {"de": "a\0b"}}}, "texts.faq.de", "no NUL"),
        ({"texts": {"faq": {"de": "\ud800"}}}, "texts.faq.de", "surrogate"),
        ({"texts": {"faq": {"de": "{{ x() }}"}}}, "texts.faq.de", "line 1: call"),
        ({"texts": {"faq": {"de": "{{ foo }}"}}}, "texts.faq.de", "foo is not known"),
        ({"texts": {"faq": {"de": 5}}}, "texts.faq.de", "string"),
        ({"texts": []}, "texts", "dictionary"),
        ({"channels": {"sales": {}}}, "channels", "'sales' is no team"),
        ({"channels": {"agent": {"email": "a@b, c@d"}}}, "channels.agent.email", "one e-mail"),
        ({"channels": {"agent": {"email": "a@b\r\nBcc: c@d"}}}, "channels.agent.email", "e-mail"),
        (
            {"channels": {"agent": {"slack_webhook_url": "ftp://hunter2"}}},
            "channels.agent.slack_webhook_url",
            "http",
        ),
        ({"slack_webhook_url": "hunter2"}, "slack_webhook_url", "http"),
        ({"working_hours": {"Monday": []}}, "working_hours", "'Monday' is no day"),
        ({"working_hours": {"monday": ["9-17"]}}, "working_hours", "monday: must be spans"),
        ({"working_hours": {"monday": ["17:00-09:00"]}}, "working_hours", "monday"),
        ({"working_hours": {"monday": ["09:00-12:00", "11:00-13:00"]}}, "working_hours", "monday"),
        ({"team_names": {"nobody": "x"}}, "team_names", "'nobody' is no team"),
        ({"services": {"email": {"url": "http://x"}}}, "services.email", "order"),
        ({"services": {"order": {}}}, "services.order.url", "required"),
        ({"services": {"order": {"url": "x"}}}, "services.order.url", "http"),
        ({"services": {"order": {"url": "http://u:hunter2@x"}}}, "services.order.url", "token"),
        ({"services": {"order": {"url": "http://x:99999"}}}, "services.order.url", "http"),
        (
            {"services": {"order": {"url": "http://x", "token": "hunter2\n"}}},
            "services.order.token",
            "printable",
        ),
        (
            {"services": {"order": {"url": "http://x", "token": MASK}}},
            "services.order.token",
            "masked",
        ),
        ({"actions": {"notify_sales": "no"}}, "actions.notify_sales", "boolean"),
        ({"apology": "false"}, "apology", "boolean"),
    ],
)
def test_what_is_wrong_is_named_and_secrets_are_not(
    changes: dict[str, Any], field: str, text: str
) -> None:
    found = problems(FULL | changes)
    assert text in found[field]
    assert "hunter2" not in str(found)


def test_names_are_held_against_those_there_are() -> None:
    assert parse({"actions": {"of_another_package": False}, "texts": {"reply_other": "x"}})
    found = problems({"actions": {"nofify": False}}, actions={"notify_sales"})
    assert "'nofify' is no action" in found["actions"]
    found = problems({"texts": {"reply_orders": "x"}}, topics={"reply_order_request", "faq"})
    assert "faq, reply_order_request" in found["texts"]


@pytest.mark.parametrize("document", [None, [], "x", 5])
def test_a_document_is_an_object(document: Any) -> None:
    assert problems(document) == {"(document)": "must be an object"}


@given(
    st.dictionaries(
        st.sampled_from(sorted(FULL)),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.sampled_from(["faq", "order", "monday", "url", "de"]), inner)
            ),
            max_leaves=6,
        ),
    )
)
def test_no_document_breaks_it(document: dict[str, Any]) -> None:
    try:
        settings = parse(document)
    except InvalidBusiness:
        assert problems(document)
    else:
        assert parse(document_of(settings, reveal=True)) == settings


def test_what_is_shown_can_be_set_again_and_shows_no_secret() -> None:
    stored = document_of(parse(FULL), reveal=True)
    shown = document_of(parse(stored), reveal=False)
    for secret in ("hunter2", "very-secret"):
        assert secret not in repr(shown)
        assert secret not in repr(parse(FULL))
    assert with_secrets_of(shown, stored) == stored
    shown["services"]["order"]["token"] = "another"
    assert with_secrets_of(shown, stored)["services"]["order"]["token"] == "another"
    assert with_secrets_of({"services": {"order": {"token": MASK}}}, {})["services"]["order"] == {
        "token": MASK
    }


def test_channels_are_laid_over_the_program_s() -> None:
    defaults = Capabilities(
        services=frozenset({"email"}),
        team_emails={"sales_team": "a@program", "supervisor": "b@program"},
        slack_teams=frozenset({"agent"}),
    )
    document = {**FULL, "channels": FULL["channels"] | {"agent": {"email": "c@shop"}}}
    found = business_of(parse(document), defaults)
    assert found.capabilities.team_emails == {
        "sales_team": "sales@shop.example",
        "supervisor": "b@program",
        "agent": "c@shop",
    }
    assert SLACK in found.capabilities.services
    assert found.webhooks["sales_team"].get_secret_value() == HOOK
    assert found.webhooks["agent"].get_secret_value() == HOOK + "-for-all"
    assert found.capabilities.services >= {"email", "order"}
    assert "very-secret" not in repr(found.capabilities)
    assert "hunter2" not in repr(found.capabilities)
    assert found.capabilities.switched_off == {"notify_sales"}
    assert found.capabilities.apologises is False


def test_without_a_channel_for_all_the_other_teams_have_none() -> None:
    document = {name: value for name, value in FULL.items() if name != "slack_webhook_url"}
    found = business_of(parse(document), Capabilities())
    assert found.capabilities.slack_teams == {"sales_team"}
    assert set(found.webhooks) == {"sales_team"}


@pytest.mark.parametrize(
    ("days", "text"),
    [
        ({}, ""),
        ({"sunday": []}, ""),
        ({"monday": ["09:00-17:00"]}, "Monday: 09:00-17:00"),
        (
            {
                "monday": ["09:00-12:00", "13:00-17:00"],
                "tuesday": ["09:00-12:00", "13:00-17:00"],
                "thursday": ["09:00-12:00", "13:00-17:00"],
                "friday": ["09:00-12:00"],
                "sunday": ["09:00-12:00"],
            },
            "Monday to Tuesday: 09:00-12:00, 13:00-17:00\nThursday: 09:00-12:00, 13:00-17:00\n"
            "Friday: 09:00-12:00\nSunday: 09:00-12:00",
        ),
    ],
)
def test_working_hours_are_a_text(days: dict[str, list[str]], text: str) -> None:
    settings = parse({"working_hours": days})
    assert working_hours(settings) == text
    found = business_of(settings, Capabilities(texts={"business_hours": "The program's."}))
    assert found.capabilities.texts["business_hours"] == (text or "The program's.")
    assert found.capabilities.about["working_hours"] == text
