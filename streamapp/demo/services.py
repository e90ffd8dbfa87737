"""Services that the demo and tests talk to: an order service and a mail server.

They keep the contract that real ones are asked to keep, and fail on request. What they remember
is bounded: of keys and mails beyond ``MEMORY`` the oldest are forgotten.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from email.parser import BytesHeaderParser
from itertools import count
from typing import Any, Literal

import orjson
from aiohttp import web
from aiosmtpd.smtp import SMTP, Envelope, Session

MEMORY = 100_000
HOST = "127.0.0.1"

# The order service definitely refuses orders for it.
DISCONTINUED = "Discontinued lamp"

_CREATED = "created"
_CANCELLED = "cancelled"  # was created before
_REFUSED = "refused"  # cancelled before it was created: it never will be
_STOP_WITHIN = 1.0  # seconds for answers under way


class Outage:
    """Whether a service fails just now: for some calls, for some time, or until told."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._calls = 0
        self._until = float("-inf")

    def fail_for(self, *, calls: int = 0, seconds: float = 0.0) -> None:
        """Fail the next ``calls`` calls, and every call within the next ``seconds``."""
        self._calls = calls
        self._until = self._clock() + seconds

    def fail_until_ended(self) -> None:
        """Fail every call until ``end``."""
        self._until = float("inf")

    def end(self) -> None:
        """Work again."""
        self._calls = 0
        self._until = float("-inf")

    def strikes(self) -> bool:
        """Whether the call at hand fails; uses up one of the calls that were asked for."""
        if self._clock() < self._until:
            return True
        if self._calls > 0:
            self._calls -= 1
            return True
        return False


@dataclass(frozen=True, slots=True)
class Call:
    """A request that was answered. ``key`` is that of the order's creation, also for a cancel."""

    operation: Literal["create", "cancel"]
    key: str
    status: int


class OrderService:
    """Creates each order once by its key, and refuses to create what has been cancelled.

    ============================  ==========================================================
    ``POST /orders``              200 and the order's id, the same for the same key; 409 while
                                  the key is worked on; 410 under a cancelled key; 422 for a
                                  product that is ``rejected``; 400 without key or object
    ``POST /orders/KEY/cancel``   200, also again; 404 where there was no such order, and
                                  then there never will be; 409 while it is being created
    ``POST /lookups/ACTION``      200 and the state of the order that is named; 404 without one
    the first two                 503 during the ``outage``, without any effect
    ============================  ==========================================================

    ``work`` is awaited while an order is created.
    """

    def __init__(
        self,
        *,
        rejected: str = DISCONTINUED,
        work: Callable[[], Awaitable[None]] | None = None,
        outage: Outage | None = None,
    ) -> None:
        self.outage = outage or Outage()
        self.ledger: deque[Call] = deque(maxlen=MEMORY)
        self.answers: Counter[tuple[str, int]] = Counter()  # (operation, status)
        self._rejected = rejected
        self._work = work
        self._orders: OrderedDict[str, tuple[str, str | None]] = OrderedDict()
        self._in_progress: set[str] = set()
        self._numbers = count(1)
        self._runner: web.AppRunner | None = None

    async def start(self) -> str:
        """Listen on a free port; gives the base URL."""
        app = web.Application()
        app.router.add_post("/orders", self._create)
        app.router.add_post("/orders/{key}/cancel", self._cancel)
        app.router.add_post("/lookups/{action}", self._look_up)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=_STOP_WITHIN)
        await self._runner.setup()
        await web.TCPSite(self._runner, HOST, 0).start()
        host, port = self._runner.addresses[0][:2]
        return f"http://{host}:{port}"

    async def stop(self) -> None:
        """Close all connections."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def order_id(self, key: str) -> str | None:
        """The id of the order that stands under this key; None for a cancelled one."""
        state, order_id = self._orders.get(key, (_REFUSED, None))
        return order_id if state == _CREATED else None

    @property
    def standing(self) -> int:
        """Orders that were created and not cancelled."""
        return sum(state == _CREATED for state, _ in self._orders.values())

    async def _create(self, request: web.Request) -> web.Response:
        key = request.headers.get("Idempotency-Key", "")
        status, body = await self._created(key, await request.read())
        return self._answer("create", key, status, body)

    async def _created(self, key: str, content: bytes) -> tuple[int, dict[str, Any]]:
        if self.outage.strikes():
            return 503, {"error": "out of order for a while"}
        order = _object(content)
        if not key or order is None:
            return 400, {"error": "an Idempotency-Key and a JSON object are needed"}
        if key in self._in_progress:
            return 409, {"error": "this key is being worked on"}
        state, order_id = self._orders.get(key, (None, None))
        if state is not None:
            gone = state != _CREATED
            return (410, {"error": "cancelled"}) if gone else (200, {"order_id": order_id})
        if order.get("product") == self._rejected:
            return 422, {"error": "this product is not sold any more"}
        self._in_progress.add(key)
        try:
            if self._work is not None:
                await self._work()
            order_id = f"order-{next(self._numbers):06d}"
            self._remember(key, _CREATED, order_id)
        finally:
            self._in_progress.discard(key)
        return 200, {"order_id": order_id}

    async def _cancel(self, request: web.Request) -> web.Response:
        key = request.match_info["key"]
        status, body = self._cancelled(key)
        return self._answer("cancel", key, status, body)

    def _cancelled(self, key: str) -> tuple[int, dict[str, Any]]:
        if self.outage.strikes():
            return 503, {"error": "out of order for a while"}
        if key in self._in_progress:
            return 409, {"error": "this key is being worked on"}
        state, order_id = self._orders.get(key, (_REFUSED, None))
        if state == _REFUSED:
            self._remember(key, _REFUSED, None)
            return 404, {"error": "there is no such order"}
        self._remember(key, _CANCELLED, order_id)
        return 200, {"order_id": order_id, "cancelled": True}

    async def _look_up(self, request: web.Request) -> web.Response:
        asked = (_object(await request.read()) or {}).get("order_id")
        for state, order_id in self._orders.values():
            if order_id is not None and order_id == asked:
                return web.json_response({"order_id": order_id, "state": state})
        return web.json_response({"error": "there is no such order"}, status=404)

    def _remember(self, key: str, state: str, order_id: str | None) -> None:
        self._orders[key] = (state, order_id)
        if len(self._orders) > MEMORY:
            self._orders.popitem(last=False)

    def _answer(
        self, operation: Literal["create", "cancel"], key: str, status: int, body: dict[str, Any]
    ) -> web.Response:
        self.ledger.append(Call(operation, key, status))
        self.answers[operation, status] += 1
        return web.Response(body=orjson.dumps(body), status=status, content_type="application/json")


class MailServer:
    """Takes any mail and counts it by its Message-ID; replies 451 during the ``outage``."""

    def __init__(self, *, outage: Outage | None = None) -> None:
        self.outage = outage or Outage()
        self.deliveries: OrderedDict[str, int] = OrderedDict()  # by Message-ID
        self.refused = 0
        self._server: asyncio.Server | None = None

    @property
    def accepted(self) -> int:
        """Deliveries, repetitions included."""
        return sum(self.deliveries.values())

    async def start(self) -> str:
        """Listen on a free port; gives the ``smtp://`` URL."""
        loop = asyncio.get_running_loop()

        def protocol() -> asyncio.Protocol:
            # Its default host name would be looked up in DNS for every connection.
            session: asyncio.Protocol = SMTP(self, hostname="localhost", ident="demo", loop=loop)
            return session

        self._server = await loop.create_server(protocol, HOST, 0)
        port = self._server.sockets[0].getsockname()[1]
        return f"smtp://{HOST}:{port}"

    async def stop(self) -> None:
        """Listen no longer; sessions under way end with their clients."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def handle_DATA(  # noqa: N802  (aiosmtpd finds the method by this name)
        self, server: SMTP, session: Session, envelope: Envelope
    ) -> str:
        if self.outage.strikes():
            self.refused += 1
            return "451 out of order for a while"
        content = envelope.content
        assert isinstance(content, bytes)
        message_id = str(BytesHeaderParser().parsebytes(content)["Message-ID"] or "")
        self.deliveries[message_id] = self.deliveries.get(message_id, 0) + 1
        if len(self.deliveries) > MEMORY:
            self.deliveries.popitem(last=False)
        return "250 taken"


def _object(content: bytes) -> dict[str, Any] | None:
    try:
        value = orjson.loads(content)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None
