"""An order service on a bare socket: keeps its promises about keys, and answers as badly as told.

It creates an order once by its key, refuses one under a cancelled key, and cancels once. What it
sends back is a behaviour's matter: a coroutine that is given the connection after the effect, if
there was one.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Request:
    """What arrived, byte for byte."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def key(self) -> str:
        return self.headers["idempotency-key"]


class Connection:
    """The far end of the client's connection, and what was sent over it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self.sent = 0
        self._reader = reader

    async def send(self, data: bytes) -> None:
        """Hand bytes to the system; waits while the client does not read."""
        self.writer.write(data)
        await self.writer.drain()
        self.sent += len(data)

    async def gone(self) -> None:
        """Return when the client has hung up."""
        with suppress(ConnectionError):
            while await self._reader.read(65536):
                pass

    def reset(self) -> None:
        """Hang up with a TCP reset."""
        sock: Any = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Answer = tuple[int, dict[str, Any]]
Behaviour = Callable[[Connection, Answer], Awaitable[None]]
REASONS = {200: "OK", 404: "Not Found", 410: "Gone"}


def http(status: int, body: bytes, *headers: str) -> bytes:
    """A whole answer."""
    head = [f"HTTP/1.1 {status} {REASONS.get(status, 'Whatever')}", *headers]
    if not any(header.lower().startswith("content-length") for header in headers):
        head.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*head, "", ""]).encode() + body


async def well(connection: Connection, answer: Answer) -> None:
    status, body = answer
    await connection.send(http(status, json.dumps(body).encode()))


@dataclass
class OrderService:
    """``create`` and ``cancel`` are how the next requests are answered, and ``effective`` whether
    a creation that is answered badly has its effect all the same; ``bad`` counts down the
    requests that are: None, all of them."""

    create: Behaviour = well
    cancel: Behaviour = well
    effective: bool = True
    bad: int | None = None
    requests: list[Request] = field(default_factory=list)
    open: int = 0  # connections
    sent: int = 0
    orders: dict[str, str] = field(default_factory=dict)  # by the creation's key
    made: list[str] = field(default_factory=list)  # keys, in the order of their effect
    over: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def standing(self) -> list[str]:
        """Keys of the orders that exist and are not cancelled."""
        return [key for key, state in self.orders.items() if state == "created"]

    def of(self, what: str) -> list[Request]:
        """Requests to ``create`` or to ``cancel``."""
        return [r for r in self.requests if r.path.endswith("/cancel") == (what == "cancel")]

    def _misbehaves(self) -> bool:
        if self.bad is None:
            return True
        self.bad -= 1
        return self.bad >= 0

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(reader, writer)
        self.open += 1
        try:
            while True:
                request = await _request(reader)
                self.requests.append(request)
                await self._serve(request, connection)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.open -= 1
            self.sent += connection.sent
            writer.close()

    async def _serve(self, request: Request, connection: Connection) -> None:
        cancels = request.path.endswith("/cancel")
        behaviour = self.cancel if cancels else self.create
        bad = behaviour is not well and self._misbehaves()
        answer: Answer
        if cancels:
            answer = self._cancelled(request.path.split("/")[-2])
        elif bad and not self.effective:
            answer = (500, {})
        else:
            answer = self._created(request.key)
        if not bad:
            behaviour = well
        working = asyncio.ensure_future(behaviour(connection, answer))
        over = asyncio.ensure_future(self.over.wait())
        try:
            await asyncio.wait({working, over}, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                working.result()
            else:
                raise ConnectionError("the test is over")
        finally:
            working.cancel()
            over.cancel()

    def _created(self, key: str) -> Answer:
        if self.orders.get(key) == "cancelled":
            return 410, {"error": "cancelled"}
        if key not in self.orders:
            self.orders[key] = "created"
            self.made.append(key)
        return 200, {"order_id": f"order-{key[:8]}"}

    def _cancelled(self, key: str) -> Answer:
        self.orders[key] = "cancelled"
        return 200, {"cancelled": True}


async def _request(reader: asyncio.StreamReader) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    first, *lines = head.strip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (x.partition(":") for x in lines)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Request(first.split()[1], headers, body)


@asynccontextmanager
async def serving(service: OrderService, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """The service's base URL while it is served."""
    server = await asyncio.start_server(service.talk, "127.0.0.1", 0, ssl=tls)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        service.over.set()
        server.close()
