"""Which optional services the settings configure."""

from __future__ import annotations

from streamapp.actions.base import Capabilities
from streamapp.settings import Settings

ORDER = "order"
INVENTORY = "inventory"
PRICING = "pricing"
CALENDAR = "calendar"
EMAIL = "email"
SLACK = "slack"


def capabilities(settings: Settings) -> Capabilities:
    """What plans may count on: a service counts as present when its address is set."""
    slack_teams = frozenset(settings.slack_webhooks())
    addresses = {
        ORDER: settings.order_service_url,
        INVENTORY: settings.inventory_service_url,
        PRICING: settings.pricing_service_url,
        CALENDAR: settings.calendar_service_url,
        EMAIL: settings.smtp_url,
        SLACK: slack_teams or None,
    }
    return Capabilities(
        services=frozenset(name for name, address in addresses.items() if address is not None),
        team_emails=settings.team_emails(),
        slack_teams=slack_teams,
        texts=settings.texts,
        timezone=settings.timezone,
        suggested_response=settings.suggested_response,
    )
