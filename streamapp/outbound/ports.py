"""What a sender needs from the outside: implemented by services and storage, or by a test."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol
from uuid import UUID

from streamapp.outbound.reply import Reply
from streamapp.services.whatsapp import Attempt
from streamapp.storage.deliveries import Delivery

Ours = Callable[[], bool]
Insist = Callable[[Callable[[], Awaitable[Any]]], Awaitable[Any]]


class Client(Protocol):
    """What is needed of ``services.whatsapp.WhatsApp``."""

    number: str

    async def send(self, recipient: str, text: str, *, reference: str) -> Attempt: ...


class Table(Protocol):
    """What is needed of ``storage.deliveries.Deliveries``."""

    async def find(self, reply: Reply) -> Delivery | None: ...
    async def begin(self, reply: Reply, claim: UUID) -> int | None: ...
    async def sent(self, message_id: str, claim: UUID, whatsapp_id: str) -> bool: ...
    async def failed(
        self, message_id: str, claim: UUID, reason: str, code: int | None, error: str
    ) -> bool: ...
    async def unknown(
        self, message_id: str, claim: UUID, reason: str, code: int | None, error: str
    ) -> bool: ...
    async def postpone(
        self,
        message_id: str,
        claim: UUID,
        reason: str,
        code: int | None,
        error: str,
        *,
        delay: float,
        spent: bool,
    ) -> bool: ...
    async def wait(self, reply: Reply, reason: str, error: str) -> None: ...
    async def refuse(self, reply: Reply, reason: str, error: str) -> bool: ...
