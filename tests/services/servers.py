"""Servers for the tests of the services: real ones, and ones that follow a script."""

from __future__ import annotations

import asyncio
import email
import email.policy
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from email.message import EmailMessage
from typing import Any

from aiohttp import web
from aiosmtpd import smtp as aiosmtpd

TOKEN = "very-secret-token"
PASSWORD = "p@ss word/secret"


class Service:
    """The far side: keeps the requests, answers as told."""

    def __init__(self) -> None:
        self.requests: list[web.BaseRequest] = []
        self.bodies: list[bytes] = []
        self.status = 200
        self.body: bytes = b'{"order_id": "o-1"}'
        self.headers: dict[str, str] = {}
        self.hang = asyncio.Event()
        self.behaviour = "answer"

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.requests.append(request)
        self.bodies.append(await request.read())
        transport = request.transport
        assert transport is not None
        match self.behaviour:
            case "hang":
                await self.hang.wait()
            case "close":
                transport.close()
            case "endless":
                response = web.StreamResponse(status=self.status)
                await response.prepare(request)
                with suppress(ConnectionError):
                    while not self.hang.is_set():
                        await response.write(b"x" * 65_536)
                        await asyncio.sleep(0.01)
                return response
            case "close half-way" | "hang half-way":
                response = web.StreamResponse(status=self.status)
                response.content_length = 1000
                await response.prepare(request)
                await response.write(b'{"order_id": "')
                if self.behaviour == "hang half-way":
                    await self.hang.wait()
                transport.close()
                return response
        return web.Response(status=self.status, body=self.body, headers=self.headers)


class Mailbox:
    """An aiosmtpd handler: keeps what arrives, replies as told."""

    def __init__(self) -> None:
        self.envelopes: list[Any] = []
        self.logins: list[tuple[bytes, bytes]] = []
        self.replies: dict[str, str] = {}
        self.later: dict[str, str] = {}  # those from the second text on

    async def handle_MAIL(  # noqa: N802
        self, server: Any, session: Any, envelope: Any, address: str, options: list[str]
    ) -> str:
        envelope.mail_from = address
        return self.replies.get("MAIL", "250 OK")

    async def handle_RCPT(  # noqa: N802
        self, server: Any, session: Any, envelope: Any, address: str, options: list[str]
    ) -> str:
        envelope.rcpt_tos.append(address)
        return self.replies.get("RCPT", "250 OK")

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        self.envelopes.append(envelope)
        reply = self.replies.get("DATA", "250 OK")
        self.replies |= self.later
        return reply

    def authenticate(
        self, server: Any, session: Any, envelope: Any, mechanism: str, data: Any
    ) -> Any:
        self.logins.append((data.login, data.password))
        return aiosmtpd.AuthResult(success=data.password == PASSWORD.encode(), handled=False)

    @property
    def messages(self) -> list[EmailMessage]:
        return [
            email.message_from_bytes(envelope.content, policy=email.policy.default)
            for envelope in self.envelopes
        ]


@asynccontextmanager
async def listening(protocol: Callable[[], Any]) -> AsyncIterator[int]:
    server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@asynccontextmanager
async def scripted(
    replies: Mapping[str, str], commands: list[str] | None = None, greeting: str = "220 hello"
) -> AsyncIterator[int]:
    """A server that looks its replies up by the command's first word; ``text`` is the mail's
    text, ``close`` hangs up, ``hang`` says nothing any more."""
    usual = {"EHLO": "250 me", "MAIL": "250 ok", "RCPT": "250 ok", "DATA": "354 go", "text": "250"}
    replies = {**usual, "QUIT": "221 bye", **replies}
    over = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await reply(writer, greeting)
            while True:
                line = (await reader.readuntil(b"\r\n")).decode().strip()
                command = line.split()[0]
                if commands is not None:
                    commands.append(line)
                await reply(writer, replies[command])
                if command == "DATA" and replies["DATA"].startswith("354"):
                    await reader.readuntil(b"\r\n.\r\n")
                    await reply(writer, replies["text"])
        writer.close()

    async def reply(writer: asyncio.StreamWriter, text: str) -> None:
        if text == "close":
            raise ConnectionError
        if text == "hang":
            await over.wait()
            raise ConnectionError
        writer.write(text.encode() + b"\r\n")
        await writer.drain()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        over.set()
        server.close()
