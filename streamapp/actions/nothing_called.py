"""Stand-ins for all services, where plans are made and never carried out."""

from __future__ import annotations

from typing import Any

from pydantic import SecretStr

from streamapp.actions.capabilities import CALENDAR, INVENTORY, ORDER, PRICING
from streamapp.actions.clients import Clients


class _NoCalls:
    async def post(self, path: str, body: bytes, *, key: str) -> dict[str, Any]:
        raise AssertionError("no service is called here")

    async def delete(self, path: str, *, key: str) -> dict[str, Any]:
        raise AssertionError("no service is called here")


class _NoMail:
    async def send(
        self,
        to: str,
        subject: str,
        body: str,
        *,
        key: str,
        message_id: str | None = None,
        calendar: str | None = None,
    ) -> None:
        raise AssertionError("no mail is sent here")


class _NoSlack:
    async def send(
        self, team: str, text: str, *, key: str, webhook: SecretStr | None = None
    ) -> None:
        raise AssertionError("nothing is sent to Slack here")


def no_calls() -> Clients:
    """Every service, none of which may be called."""
    http = {name: _NoCalls() for name in (ORDER, INVENTORY, PRICING, CALENDAR)}
    return Clients(http=http, mailer=_NoMail(), slack=_NoSlack())
