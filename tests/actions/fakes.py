"""Services that record what they are asked, and answer or fail as told."""

from typing import Any


class FakeHttp:
    def __init__(self) -> None:
        self.posted: list[tuple[str, bytes, str]] = []
        self.answer: dict[str, Any] = {"order_id": "o-1", "more": "than is kept"}
        self.error: Exception | None = None

    async def post(self, path: str, body: bytes, *, key: str) -> dict[str, Any]:
        self.posted.append((path, body, key))
        if self.error is not None:
            raise self.error
        return self.answer


class FakeMailer:
    def __init__(self) -> None:
        self.sent: list[tuple[str, str, str, str, str | None]] = []
        self.error: Exception | None = None

    async def send(
        self, to: str, subject: str, body: str, *, key: str, message_id: str | None = None
    ) -> None:
        self.sent.append((to, subject, body, key, message_id))
        if self.error is not None:
            raise self.error
