"""Services that record what they are asked, and answer or fail as told."""

from typing import Any

from pydantic import SecretStr

from streamapp.actions.clients import Clients


class FakeHttp:
    def __init__(self) -> None:
        self.posted: list[tuple[str, bytes, str]] = []
        self.deleted: list[tuple[str, str]] = []
        self.answer: dict[str, Any] = {"order_id": "o-1", "event_id": "e-1", "more": "than is kept"}
        self.error: Exception | None = None

    async def post(self, path: str, body: bytes, *, key: str) -> dict[str, Any]:
        self.posted.append((path, body, key))
        return self._answered()

    async def delete(self, path: str, *, key: str) -> dict[str, Any]:
        self.deleted.append((path, key))
        return self._answered()

    def _answered(self) -> dict[str, Any]:
        if self.error is not None:
            raise self.error
        return self.answer


class FakeMailer:
    def __init__(self) -> None:
        self.sent: list[tuple[str, str, str, str, str | None]] = []
        self.calendars: list[str | None] = []
        self.error: Exception | None = None

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
        self.sent.append((to, subject, body, key, message_id))
        self.calendars.append(calendar)
        if self.error is not None:
            raise self.error


class FakeSlack:
    def __init__(self) -> None:
        self.sent: list[tuple[str, str, str]] = []
        self.error: Exception | None = None

    async def send(
        self, team: str, text: str, *, key: str, webhook: SecretStr | None = None
    ) -> None:
        self.sent.append((team, text, key))
        if self.error is not None:
            raise self.error


SERVICES = ("order", "inventory", "pricing", "calendar")


def all_clients(
    http: FakeHttp | None = None,
    mailer: FakeMailer | None = None,
    slack: FakeSlack | None = None,
) -> Clients:
    """Every service, each a fake; HTTP services are one."""
    one = http or FakeHttp()
    return Clients(
        http=dict.fromkeys(SERVICES, one),
        mailer=mailer or FakeMailer(),
        mail_from="Shop <shop@example.com>",
        slack=slack or FakeSlack(),
    )
