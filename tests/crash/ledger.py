"""The world outside: services of orders, stock, calendar and effects, Slack and a mail server,
that keep a ledger.

They stand outside of the worker that is killed, and note each request with its idempotency key.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from email import message_from_bytes
from typing import Any

from aiohttp import web
from aiosmtpd.smtp import SMTP

HOST = "127.0.0.1"
REFUSED = frozenset({"refused", "unwelcome"})


@dataclass
class Ledger:
    """``active`` are the creations in effect, by key; ``requests`` counts (path, key)."""

    active: dict[str, str] = field(default_factory=dict)
    bodies: dict[tuple[str, str], set[bytes]] = field(default_factory=dict)
    requests: Counter[tuple[str, str]] = field(default_factory=Counter)
    created: Counter[str] = field(default_factory=Counter)  # effects by key
    mails: list[tuple[str, str]] = field(default_factory=list)  # message id, key
    notes: list[str] = field(default_factory=list)  # at Slack
    healed: set[str] = field(default_factory=set)  # keys of effects that may be cancelled
    reformed: bool = False  # orders for what was refused are taken
    _gone: set[str] = field(default_factory=set)

    def application(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/effects/{action}", self._effect)
        app.router.add_post("/effects/{action}/{key}/cancel", self._cancel)
        app.router.add_post("/orders", self._order)
        app.router.add_post("/orders/{key}/cancel", self._cancel)
        app.router.add_post("/lookups/{action}", self._look_up)
        app.router.add_post("/events", self._event)
        app.router.add_delete("/events/{key}", self._cancel)
        app.router.add_post("/slack", self._slack)
        app.router.add_post("/heal", self._heal)
        app.router.add_post("/reform", self._reform)
        return app

    def smtp(self) -> SMTP:
        return SMTP(self, hostname="localhost")

    async def _noted(self, request: web.Request) -> tuple[str, bytes]:
        key, body = request.headers["Idempotency-Key"], await request.read()
        self.requests[request.path, key] += 1
        self.bodies.setdefault((request.path, key), set()).add(body)
        return key, body

    async def _effect(self, request: web.Request) -> web.Response:
        key, _ = await self._noted(request)
        action = request.match_info["action"]
        if action == "flaky" and self.requests[request.path, key] == 1:
            return web.json_response({"error": "later"}, status=503)
        return self._create(key, action, refused=action in REFUSED)

    async def _order(self, request: web.Request) -> web.Response:
        key, body = await self._noted(request)
        refused = json.loads(body)["product"] in REFUSED and not self.reformed
        return self._create(key, "order", refused=refused)

    def _create(self, key: str, what: str, *, refused: bool) -> web.Response:
        if refused or key in self._gone:
            return web.json_response({"error": "no"}, status=422)
        if key not in self.active:
            self.active[key] = what
            self.created[key] += 1
        return web.json_response({"order_id": f"order-{key[:8]}", "event_id": key[:8]})

    async def _look_up(self, request: web.Request) -> web.Response:
        await self._noted(request)
        return web.json_response({"asked": request.match_info["action"]})

    async def _event(self, request: web.Request) -> web.Response:
        key, _ = await self._noted(request)
        return self._create(key, "event", refused=False)

    async def _slack(self, request: web.Request) -> web.Response:
        self.notes.append(json.loads(await request.read())["text"])
        return web.Response(text="ok")

    async def _cancel(self, request: web.Request) -> web.Response:
        await self._noted(request)
        key, action = request.match_info["key"], request.match_info.get("action")
        if action == "clinging" and key not in self.healed:
            return web.json_response({"error": "not now"}, status=422)
        if key not in self.active and key not in self._gone:
            self._gone.add(key)  # a creation that comes late is refused
            return web.json_response({"error": "there is none"}, status=404)
        self._gone.add(key)
        self.active.pop(key, None)
        return web.json_response({"cancelled": True})

    async def _heal(self, request: web.Request) -> web.Response:
        self.healed |= {key for key, what in self.active.items() if what == "clinging"}
        return web.json_response({})

    async def _reform(self, request: web.Request) -> web.Response:
        self.reformed = True
        return web.json_response({})

    async def handle_RCPT(  # noqa: N802
        self, server: Any, session: Any, envelope: Any, address: str, options: list[str]
    ) -> str:
        if address == "refused@example.org":
            return "550 no such user"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        mail = message_from_bytes(envelope.content)
        self.mails.append((mail["Message-ID"], mail.get("X-Idempotency-Key", "")))
        return "250 OK"
