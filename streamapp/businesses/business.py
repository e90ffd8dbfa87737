"""One business as messages are planned for: its own settings laid over the program's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import SecretStr

from streamapp.actions.base import Capabilities
from streamapp.actions.capabilities import SLACK
from streamapp.businesses.model import DAYS, BusinessSettings, InvalidBusiness, parse
from streamapp.service_settings import TEAMS

BUSINESS_HOURS = "business_hours"  # the topic that working hours are a text for


@dataclass(frozen=True, slots=True)
class OwnService:
    """Where a service of the business's own is."""

    url: str
    token: SecretStr | None


@dataclass(frozen=True, slots=True)
class Business:
    """``capabilities`` is what plans may count on. Addresses with secrets are in no plan: they are
    looked up here when something is sent."""

    capabilities: Capabilities
    services: Mapping[str, OwnService] = field(default_factory=dict)
    webhooks: Mapping[str, SecretStr] = field(default_factory=dict)  # by team


def business_from(document: Any | None, defaults: Capabilities) -> Business:
    """The business of a stored document, as a worker that knew nothing of it before has it: with
    the ``defaults`` where there is none, or one that cannot be used."""
    if document is None:
        return Business(defaults)
    try:
        return business_of(parse(document), defaults)
    except InvalidBusiness:
        return Business(defaults)


def business_of(settings: BusinessSettings, defaults: Capabilities) -> Business:
    """The business with these settings; what it does not set is as in ``defaults``."""
    webhooks = _webhooks(settings)
    services = {*defaults.services, *settings.services}
    if webhooks:
        services.add(SLACK)
    emails = {team: channel.email for team, channel in settings.channels.items() if channel.email}
    slack_teams = {team for team in TEAMS if team in defaults.slack_teams or team in webhooks}
    hours = working_hours(settings)
    texts = dict(defaults.texts)
    if hours:
        texts[BUSINESS_HOURS] = hours
    allowed = settings.suggested_response
    return Business(
        capabilities=replace(
            defaults,
            services=frozenset(services),
            team_emails={**defaults.team_emails, **emails},
            slack_teams=frozenset(slack_teams),
            texts=texts,
            timezone=settings.timezone or defaults.timezone,
            templates=settings.texts,
            language=settings.language,
            about=_about(settings, hours),
            team_names=settings.team_names,
            switched_off=frozenset(name for name, on in settings.actions.items() if not on),
            apologises=settings.apology,
            suggested_response=defaults.suggested_response if allowed is None else allowed,
        ),
        services={
            name: OwnService(service.url, service.token)
            for name, service in settings.services.items()
        },
        webhooks=webhooks,
    )


def _webhooks(settings: BusinessSettings) -> dict[str, SecretStr]:
    found = {}
    for team in TEAMS:
        channel = settings.channels.get(team)
        url = (channel and channel.slack_webhook_url) or settings.slack_webhook_url
        if url is not None:
            found[team] = url
    return found


def _about(settings: BusinessSettings, hours: str) -> dict[str, Any]:
    """What templates see as ``business``."""
    return {
        "name": settings.name or "",
        "working_hours": hours,
        "teams": dict(settings.team_names),
    }


def working_hours(settings: BusinessSettings) -> str:
    """The working hours, a line for each run of days that are alike; empty where none are set."""
    lines: list[tuple[str, str, str]] = []
    for day in DAYS:
        spans = ", ".join(settings.working_hours.get(day, ()))
        if lines and lines[-1][2] == spans and lines[-1][1] == DAYS[DAYS.index(day) - 1]:
            lines[-1] = (lines[-1][0], day, spans)
        else:
            lines.append((day, day, spans))
    return "\n".join(
        f"{first.capitalize() if first == last else f'{first.capitalize()} to {last.capitalize()}'}"
        f": {spans}"
        for first, last, spans in lines
        if spans
    )
