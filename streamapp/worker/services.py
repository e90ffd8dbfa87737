"""The external services that the settings name: their clients, made at once, closed at the end."""

from __future__ import annotations

from collections.abc import Callable

from pydantic import SecretStr

from streamapp.actions.capabilities import CALENDAR, EMAIL, INVENTORY, ORDER, PRICING, SLACK
from streamapp.actions.clients import Clients
from streamapp.services.email import Mailer
from streamapp.services.http import HttpService
from streamapp.services.slack import Slack
from streamapp.services.whatsapp import MAX_CONNECTIONS, NAME, WhatsApp
from streamapp.settings import Settings
from streamapp.storage.business_directory import BusinessDirectory
from streamapp.worker.own_services import BusinessServices


class Services:
    """Clients of what is configured, by the program's settings or by a business's
    (``directory``). ``names`` are the circuits of the former."""

    def __init__(
        self, settings: Settings, directory: Callable[[], BusinessDirectory] | None = None
    ) -> None:
        http: dict[str, tuple[str | None, SecretStr | None, float]] = {
            ORDER: (
                settings.order_service_url,
                settings.order_service_token,
                settings.order_service_timeout,
            ),
            INVENTORY: (
                settings.inventory_service_url,
                settings.inventory_service_token,
                settings.inventory_service_timeout,
            ),
            PRICING: (
                settings.pricing_service_url,
                settings.pricing_service_token,
                settings.pricing_service_timeout,
            ),
            CALENDAR: (
                settings.calendar_service_url,
                settings.calendar_service_token,
                settings.calendar_service_timeout,
            ),
        }
        self._http = {
            name: HttpService(name, url, token=token, timeout=timeout)
            for name, (url, token, timeout) in http.items()
            if url is not None
        }
        self._mailer = (
            Mailer(settings.smtp_url, mail_from=settings.mail_from, timeout=settings.smtp_timeout)
            if settings.smtp_url
            else None
        )
        webhooks = settings.slack_webhooks()
        # Without any of the program's own, a business may still have one.
        self._slack = (
            Slack(webhooks, settings.slack_timeout) if webhooks or directory is not None else None
        )
        self._own = (
            BusinessServices(directory, {name: http[name][2] for name in http})
            if directory is not None
            else None
        )
        self.whatsapp = _whatsapp(settings)
        self.clients = Clients(
            http=self._http,
            timeouts={name: http[name][2] for name in http} | {EMAIL: settings.smtp_timeout},
            mailer=self._mailer,
            mail_from=settings.mail_from,
            slack=self._slack,
            own=self._own,
        )
        self.names = (
            *self._http,
            *([EMAIL] if self._mailer else []),
            *([SLACK] if webhooks else []),
            *([NAME] if self.whatsapp else []),
        )

    async def close(self) -> None:
        """Close all connections; calls under way fail."""
        clients = (*self._http.values(), self._mailer, self._slack, self._own, self.whatsapp)
        for client in clients:
            if client is not None:
                await client.close()


def _whatsapp(settings: Settings) -> WhatsApp | None:
    address, number = settings.whatsapp_api_url, settings.whatsapp_phone_number_id
    if address is None or number is None:
        return None
    http = HttpService(
        NAME,
        address,
        token=settings.whatsapp_access_token,
        timeout=settings.whatsapp_timeout,
        max_connections=MAX_CONNECTIONS,
    )
    return WhatsApp(http, number)
