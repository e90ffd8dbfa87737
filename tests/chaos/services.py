"""An order service and a mail server that misbehave on demand and note all that they do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from email.parser import BytesHeaderParser
from enum import StrEnum
from hashlib import sha256
from random import Random
from typing import Any

from aiohttp import web
from aiosmtpd.smtp import SMTP, Envelope, Session

from tests.chaos.evidence import Mail, Request
from tests.chaos.traffic import REFUSED

HOST = "127.0.0.1"
CLIENT_TIMEOUT = 3.0  # seconds; what the workers are given
_LATE = (3.2, 6.0)  # seconds; beyond the client's timeout
_SLOW = (0.3, 2.0)
_HANG = 20.0
_GARBAGE = (b"<html>welcome</html>", b"[1, 2", b'"done"', b"\xff\xfe", b'{"order_id": "a\\u0000"}')

Clock = Callable[[], float]


class Mood(StrEnum):
    """How a service treats the requests that its bad temper strikes."""

    WELL = "well"
    REFUSES = "refuses"  # 503 (mail: 451), without effect
    HANGS = "hangs"  # neither effect nor answer
    LATE = "late"  # the effect at once or in the end, the answer after the client's timeout
    CUTS = "cuts"  # closes the connection, before the effect, after it, or within the answer
    SLOW = "slow"
    LIMITS = "limits"  # 429 with Retry-After, without effect
    GARBLES = "garbles"  # the effect, and an answer that nobody understands


@dataclass(slots=True)
class Temper:
    """A mood, the share of requests that it strikes, and how many it has struck."""

    random: Random
    mood: Mood = Mood.WELL
    share: float = 1.0
    struck: int = 0

    def upset(self, mood: Mood, share: float) -> None:
        self.mood, self.share, self.struck = mood, share, 0

    def calm(self) -> None:
        self.mood = Mood.WELL

    def strike(self) -> Mood:
        """The mood that the next request meets."""
        if self.mood is Mood.WELL or self.random.random() >= self.share:
            return Mood.WELL
        self.struck += 1
        return self.mood


class OrderService:
    """Creates an order once by its key, refuses one under a cancelled key, and one of ``REFUSED``.

    A key that is being worked on is answered with 409, so that what happens under a key happens
    in one order. ``requests`` are in the order of arrival, ``effects`` in that of their effect.
    """

    def __init__(self, clock: Clock, seed: int) -> None:
        self.temper = Temper(Random(seed))
        self.requests: list[Request] = []
        self.effects: list[Request] = []
        self._clock = clock
        self._states: dict[str, str] = {}
        self._order_of: dict[str, Request] = {}  # the first creation under a key
        self._in_progress: set[str] = set()
        self._runner: web.AppRunner | None = None

    @property
    def active(self) -> frozenset[str]:
        """Creation keys of the orders that stand."""
        return frozenset(key for key, state in self._states.items() if state == "created")

    async def start(self) -> str:
        app = web.Application()
        app.router.add_post("/orders", self._create)
        app.router.add_post("/orders/{key}/cancel", self._cancel)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, HOST, 0).start()
        host, port = self._runner.addresses[0][:2]
        return f"http://{host}:{port}"

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _create(self, http: web.Request) -> web.StreamResponse:
        content = await http.read()
        order = json.loads(content)
        request = Request(
            self._clock(),
            "create",
            http.headers["Idempotency-Key"],
            order["processing_id"],
            order["lead_id"],
            order["entities"]["seq"],
            sha256(content).hexdigest(),
        )
        self._order_of.setdefault(request.key, request)
        return await self._serve(http, request, lambda: self._created(request, order["product"]))

    async def _cancel(self, http: web.Request) -> web.StreamResponse:
        key = http.match_info["key"]
        content = await http.read()
        known = self._order_of.get(key)
        request = Request(
            self._clock(),
            "cancel",
            key,
            known.processing_id if known else "",
            known.lead if known else "",
            known.seq if known else 0,
            sha256(content).hexdigest(),
        )
        return await self._serve(http, request, lambda: self._cancelled(request))

    def _created(self, request: Request, product: str) -> tuple[int, dict[str, Any]]:
        state = self._states.get(request.key)
        if state is not None and state != "created":
            return 410, {"error": "cancelled"}
        if product == REFUSED:
            return 422, {"error": "not sold any more"}
        if state is None:
            self._states[request.key] = "created"
            self._note(request, "created")
        return 200, {"order_id": f"order-{request.key[:8]}"}

    def _cancelled(self, request: Request) -> tuple[int, dict[str, Any]]:
        state = self._states.get(request.key)
        if state in (None, "never"):
            self._states[request.key] = "never"
            return 404, {"error": "there is no such order"}
        if state == "created":
            self._states[request.key] = "cancelled"
            self._note(request, "cancelled")
        return 200, {"cancelled": True}

    def _note(self, request: Request, effect: Any) -> None:
        request.effect, request.effect_at = effect, self._clock()
        self.effects.append(request)

    async def _serve(
        self,
        http: web.Request,
        request: Request,
        act: Callable[[], tuple[int, dict[str, Any]]],
    ) -> web.StreamResponse:
        self.requests.append(request)
        mood, random = self.temper.strike(), self.temper.random
        if mood is Mood.REFUSES:
            request.outcome = "503"
            return web.json_response({"error": "out of order"}, status=503)
        if mood is Mood.LIMITS:
            request.outcome = "429"
            wait = {"Retry-After": random.choice(("1", "2"))}
            return web.json_response({"error": "too many"}, status=429, headers=wait)
        if mood is Mood.HANGS:
            request.outcome = "hung"
            await asyncio.sleep(_HANG)
            return _cut(http)
        if mood is Mood.CUTS and random.random() < 0.3:
            request.outcome = "cut before"
            return _cut(http)
        if request.key in self._in_progress:
            request.outcome = "409"
            return web.json_response({"error": "being worked on"}, status=409)
        self._in_progress.add(request.key)
        try:
            at_once = mood is not Mood.SLOW and random.random() < 0.5
            status, body = act() if at_once else (0, {})
            if mood is Mood.LATE:
                await asyncio.sleep(random.uniform(*_LATE))
            elif mood is Mood.SLOW:
                await asyncio.sleep(random.uniform(*_SLOW))
            if not at_once:
                status, body = act()
        finally:
            self._in_progress.discard(request.key)
        request.outcome = f"{status}" if mood is Mood.WELL else f"{status} {mood}"
        if mood is Mood.CUTS and random.random() < 0.5:
            response = web.StreamResponse(status=status, headers={"Content-Length": "100"})
            await response.prepare(http)
            await response.write(b'{"order_id')
            _cut(http)
            return response
        if mood is Mood.GARBLES and status == 200:
            return web.Response(body=random.choice(_GARBAGE), content_type="application/json")
        return _cut(http) if mood is Mood.CUTS else web.json_response(body, status=status)


def _cut(http: web.Request) -> web.StreamResponse:
    if http.transport is not None:
        http.transport.abort()
    return web.Response()


class MailServer:
    """Takes mail and notes it by its key; late, it takes it and lets the client wait in vain."""

    def __init__(self, clock: Clock, seed: int) -> None:
        self.temper = Temper(Random(seed))
        self.mails: list[Mail] = []
        self._clock = clock
        self._server: asyncio.Server | None = None

    async def start(self) -> str:
        loop = asyncio.get_running_loop()

        def protocol() -> asyncio.Protocol:
            # Its default host name would be looked up in DNS for every connection.
            session: asyncio.Protocol = SMTP(self, hostname="localhost", ident="test", loop=loop)
            return session

        self._server = await loop.create_server(protocol, HOST, 0)
        return f"smtp://{HOST}:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()

    async def handle_DATA(  # noqa: N802  (aiosmtpd finds the method by this name)
        self, server: SMTP, session: Session, envelope: Envelope
    ) -> str:
        assert isinstance(envelope.content, bytes)
        head = BytesHeaderParser().parsebytes(envelope.content)
        mood = self.temper.strike()
        mail = Mail(
            self._clock(),
            str(head["X-Idempotency-Key"]),
            str(head["Message-ID"]),
            accepted=mood is not Mood.REFUSES,
            outcome=f"{mood}",
        )
        self.mails.append(mail)
        if mood is Mood.REFUSES:
            return "451 out of order"
        if mood is Mood.LATE:
            await asyncio.sleep(self.temper.random.uniform(*_LATE))
        return "250 taken"
