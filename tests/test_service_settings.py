"""Settings of services, channels and texts: each optional, each checked."""

from __future__ import annotations

import json

import pytest

from streamapp.actions.capabilities import capabilities
from streamapp.service_settings import TEAMS
from streamapp.settings import SettingsError, load
from streamapp.worker.services import Services

HOOK = "https://hooks.example.com/T0/B0/very-secret"


def test_without_settings_there_is_nothing() -> None:
    found = capabilities(load({}))
    assert (found.services, found.team_emails, found.texts) == (frozenset(), {}, {})
    assert found.slack_teams == frozenset()
    assert Services(load({})).names == ()


@pytest.mark.parametrize("name", ["ORDER", "INVENTORY", "PRICING", "CALENDAR"])
async def test_each_service_is_there_by_its_address(name: str) -> None:
    settings = load({f"STREAMAPP_{name}_SERVICE_URL": "http://127.0.0.1:1/base/"})
    assert capabilities(settings).services == {name.lower()}
    services = Services(settings)
    assert services.names == (name.lower(),)
    assert services.clients.timeouts[name.lower()] == 10.0
    await services.close()


async def test_slack_is_for_the_teams_that_have_a_channel() -> None:
    settings = load({"STREAMAPP_SUPERVISOR_SLACK_WEBHOOK_URL": HOOK})
    found = capabilities(settings)
    assert found.services == {"slack"}
    assert found.slack_teams == frozenset({"supervisor"})
    services = Services(settings)
    assert services.names == ("slack",)
    await services.close()


def test_one_channel_can_be_for_all() -> None:
    settings = load(
        {"STREAMAPP_SLACK_WEBHOOK_URL": HOOK, "STREAMAPP_AGENT_SLACK_WEBHOOK_URL": HOOK + "2"}
    )
    found = {team: url.get_secret_value() for team, url in settings.slack_webhooks().items()}
    assert len(found) == 8
    assert found["agent"] == HOOK + "2"
    assert {url for team, url in found.items() if team != "agent"} == {HOOK}
    assert HOOK not in repr(settings)


def test_each_team_has_an_address_of_its_own() -> None:
    teams = [name.upper() for name in TEAMS.values()]
    assert len(teams) == 8
    settings = load({f"STREAMAPP_{name}_EMAIL": f"{name}@example.org" for name in teams})
    assert sorted(settings.team_emails().values()) == sorted(f"{n}@example.org" for n in teams)
    assert settings.team_emails()["support_team"] == "SUPPORT@example.org"


def test_texts_are_a_json_object() -> None:
    texts = {"faq": "Everything.", "price_list": "1 EUR"}
    settings = load({"STREAMAPP_TEXTS": json.dumps(texts)})
    assert capabilities(settings).texts == texts
    assert load({"STREAMAPP_TEXTS": ""}).texts == {}


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("TEXTS", "faq", "must be a JSON object"),
        ("TEXTS", '["faq"]', "dictionary"),
        ("TEXTS", '{"faqs": "x"}', "'faqs' is no topic; there are availability_form"),
        ("TEXTS", '{"faq": " "}', "faq: a text has 1 to 4096 characters"),
        ("TEXTS", '{"faq": "a\\u0000b"}', "no NUL"),
        ("TEXTS", json.dumps({"faq": "x" * 4097}), "4096"),
        ("TEXTS", '{"faq": 7}', "string"),
        ("TIMEZONE", "Middle/Earth", "name of a time zone"),
        ("TIMEZONE", "../../etc/passwd", "name of a time zone"),
        ("CALENDAR_SERVICE_URL", "ftp://x", "http:// or https://"),
        ("SLACK_WEBHOOK_URL", "hooks.example.com/very-secret", "http:// or https://"),
        ("AGENT_SLACK_WEBHOOK_URL", "ftp://very-secret", "http:// or https://"),
    ],
)
def test_what_is_wrong_is_told(name: str, value: str, told: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load({f"STREAMAPP_{name}": value})
    assert told in str(caught.value)
    assert f"STREAMAPP_{name}" in str(caught.value)
    assert "very-secret" not in str(caught.value)
