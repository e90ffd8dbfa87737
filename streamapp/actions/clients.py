"""The clients of external services, as executors need them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from pydantic import SecretStr

# A call begins up to two seconds after the commit of its STARTED (protocol, 1).
START_MARGIN = 2.0


class JsonClient(Protocol):
    """What is needed of ``services.http.HttpService``."""

    async def post(self, path: str, body: bytes, *, key: str) -> dict[str, Any]: ...

    async def delete(self, path: str, *, key: str) -> dict[str, Any]: ...


class MailSender(Protocol):
    """What is needed of ``services.email.Mailer``."""

    async def send(
        self,
        to: str,
        subject: str,
        body: str,
        *,
        key: str,
        message_id: str | None = None,
        calendar: str | None = None,
    ) -> None: ...


class SlackSender(Protocol):
    """What is needed of ``services.slack.Slack``."""

    async def send(
        self, team: str, text: str, *, key: str, webhook: SecretStr | None = None
    ) -> None: ...


class OwnServices(Protocol):
    """What businesses have set for themselves. Their addresses are in no plan and no request:
    they are looked up when something is sent, as the program's own are."""

    async def known(self, business_id: str) -> None:
        """Returns once the business's settings are at hand; waits while the database is away."""

    def http(self, service: str, business_id: str) -> JsonClient | None:
        """The business's own service, of what is at hand; None where it has none."""

    def webhook(self, team: str, business_id: str) -> SecretStr | None:
        """The team's Slack channel at the business, of what is at hand."""


@dataclass(frozen=True, slots=True)
class Clients:
    """What is configured: HTTP services by name, e-mail, Slack; by default nothing.

    ``timeouts`` are the limits of one call in seconds by the circuit's name, as the clients have
    them. Without one, a careful default decides when an undoing that found nothing counts.
    """

    http: Mapping[str, JsonClient] = field(default_factory=dict)
    timeouts: Mapping[str, float] = field(default_factory=dict)
    mailer: MailSender | None = None
    mail_from: str = "streamapp@localhost"
    slack: SlackSender | None = None
    own: OwnServices | None = None
