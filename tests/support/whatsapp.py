"""A stand-in for the WhatsApp Cloud API: a real server that misbehaves as it is documented to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

TOKEN = "EAAG-very-secret"
NUMBER = "106540352242922"


def failure(code: int | None, details: str = "details") -> bytes:
    """The body of an error, with its code."""
    error = {"message": f"(#{code}) title", "type": "OAuthException", "code": code}
    return json.dumps({"error": {**error, "error_data": {"details": details}}}).encode()


class Cloud:
    """Keeps what arrives. ``script`` holds (status, body) or a way to misbehave for the next
    requests; where it is empty, messages are taken."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.tokens: list[str] = []
        self.script: list[tuple[int, bytes] | str] = []
        self.headers: dict[str, str] = {}
        self.over = asyncio.Event()
        self.arrived = asyncio.Event()
        self.url = ""

    @property
    def texts(self) -> list[str]:
        return [message["text"]["body"] for message in self.messages]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.messages.append(await request.json())
        self.tokens.append(request.headers.get("Authorization", ""))
        self.arrived.set()
        assert request.transport is not None
        told = self.script.pop(0) if self.script else "take"
        if isinstance(told, tuple):
            return web.Response(status=told[0], body=told[1], headers=self.headers)
        if told == "hang":
            await self.over.wait()
        if told == "close":
            request.transport.close()
        if told == "half-closed":
            response = web.StreamResponse(status=200)
            response.content_length = 1000
            await response.prepare(request)
            await response.write(b'{"messages": [{"id": "wamid.')
            request.transport.close()
            return response
        number = len(self.messages)
        return web.json_response(
            {"messaging_product": "whatsapp", "messages": [{"id": f"wamid.{number}"}]}
        )


@asynccontextmanager
async def cloud() -> AsyncIterator[Cloud]:
    """The stand-in, listening."""
    far = Cloud()
    app = web.Application()
    app.router.add_post(f"/v23.0/{NUMBER}/messages", far.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    far.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v23.0"
    try:
        yield far
    finally:
        far.over.set()
        await runner.cleanup()
