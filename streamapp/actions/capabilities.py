"""Which optional services the settings configure."""

from __future__ import annotations

from streamapp.actions.base import Capabilities
from streamapp.settings import Settings

ORDER = "order"
EMAIL = "email"


def capabilities(settings: Settings) -> Capabilities:
    """What plans may count on: a service counts as present when its address is set."""
    services = {
        name
        for name, address in ((ORDER, settings.order_service_url), (EMAIL, settings.smtp_url))
        if address is not None
    }
    return Capabilities(frozenset(services), settings.team_emails())
