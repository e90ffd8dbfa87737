"""The webhook by which WhatsApp tells what became of messages.

Its calls are authenticated by their signature, an HMAC over the raw body with the app's secret,
and not by the admin token: WhatsApp has none. Without that secret there is no such page.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Awaitable, Callable

import orjson
from aiohttp import web
from pydantic import SecretStr

from streamapp.outbound.statuses import StatusUpdate, updates
from streamapp.settings import Settings
from streamapp.storage.deliveries import Applied
from streamapp.storage.faults import DATABASE_ERRORS, Fault, fault_of
from streamapp.web.security import WEBHOOK_PATH

MAX_BODY = 3 * 1024 * 1024  # bytes; WhatsApp sends no more
READ_WITHIN = 10.0  # seconds in which a call's body has to arrive
APPLY_WITHIN = 20.0  # seconds for all statuses of a call
_SIGNATURE = "X-Hub-Signature-256"
_PREFIX = "sha256="

Apply = Callable[[StatusUpdate], Awaitable[Applied]]


class StatusWebhook:
    """``apply`` writes a status down; ``told`` hears what became of each (status, result)."""

    def __init__(
        self,
        app_secret: SecretStr,
        verify_token: SecretStr | None,
        apply: Apply,
        told: Callable[[str, str], None],
    ) -> None:
        self._secret = app_secret.get_secret_value().encode()
        self._verify_token = verify_token
        self._apply = apply
        self._told = told

    def routes(self) -> list[web.RouteDef]:
        return [web.get(WEBHOOK_PATH, self.verify), web.post(WEBHOOK_PATH, self.receive)]

    async def verify(self, request: web.Request) -> web.Response:
        """WhatsApp asks once, when the address is entered, whether we are meant."""
        query = request.query
        token = self._verify_token.get_secret_value() if self._verify_token else ""
        given = query.get("hub.verify_token", "")
        right = hmac.compare_digest(given.encode("utf-8", "replace"), token.encode())
        if not token or not right or query.get("hub.mode") != "subscribe":
            return web.Response(status=403)
        return web.Response(text=query.get("hub.challenge", ""), content_type="text/plain")

    async def receive(self, request: web.Request) -> web.Response:
        """200: all are written down; 401: not signed by WhatsApp; 413, 408: too large, too slow;
        400: no JSON; 503: WhatsApp is to tell them again."""
        try:
            async with asyncio.timeout(READ_WITHIN):
                body = await _read(request)
        except TimeoutError:
            return web.Response(status=408)
        if body is None:
            return web.Response(status=413)
        if not self._is_signed(body, request.headers.get(_SIGNATURE, "")):
            return web.Response(status=401)
        try:
            document = orjson.loads(body)
        except orjson.JSONDecodeError:
            return web.Response(status=400)
        try:
            async with asyncio.timeout(APPLY_WITHIN):
                for update in updates(document):
                    self._told(update.status, await self._written(update))
        except DATABASE_ERRORS:
            # What was written is found as such when it is told again.
            return web.Response(status=503)
        return web.Response()

    def _is_signed(self, body: bytes, header: str) -> bool:
        expected = hmac.new(self._secret, body, hashlib.sha256).hexdigest()
        given = header.removeprefix(_PREFIX) if header.startswith(_PREFIX) else ""
        return hmac.compare_digest(given.encode("utf-8", "replace"), expected.encode())

    async def _written(self, update: StatusUpdate) -> Applied:
        try:
            return await self._apply(update)
        except DATABASE_ERRORS as error:
            if fault_of(error) is not Fault.ROW:
                raise
            return Applied.UNKNOWN  # no row can have such an id


def status_webhook(
    settings: Settings, apply: Apply, told: Callable[[str, str], None]
) -> StatusWebhook | None:
    """The webhook as the settings have it; None without the secret that signs its calls."""
    if settings.whatsapp_app_secret is None:
        return None
    return StatusWebhook(settings.whatsapp_app_secret, settings.whatsapp_verify_token, apply, told)


async def _read(request: web.Request) -> bytes | None:
    """The body; None when it is longer than ``MAX_BODY``."""
    if (request.content_length or 0) > MAX_BODY:
        return None
    body = bytearray()
    async for chunk in request.content.iter_any():
        body += chunk
        if len(body) > MAX_BODY:
            return None
    return bytes(body)
