"""The world outside: services, a mail server and Slack, that note what they are asked."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer
from aiosmtpd import smtp as aiosmtpd

from streamapp.actions.capabilities import capabilities
from streamapp.actions.defaults import default_actions
from streamapp.actions.registry import ActionRegistry
from streamapp.actions.topics import TOPICS
from streamapp.saga.model import Message, SagaState
from streamapp.service_settings import TEAMS
from streamapp.settings import Settings, load
from streamapp.worker.services import Services
from tests.actions import building
from tests.services.servers import Mailbox, listening
from tests.support.bench import Bench
from tests.support.sagas import saga

SERVICES = ("order", "inventory", "pricing", "calendar")


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as it arrived."""

    what: str  # method and path
    key: str
    body: Any


Answer = tuple[int, dict[str, Any]]


@dataclass
class Outside:
    """What arrived, in order. ``answers`` holds by method and path what is answered next instead
    of success: a status with a body, or "cut" for a connection that ends after the effect."""

    asked: list[Asked] = field(default_factory=list)
    mailbox: Mailbox = field(default_factory=Mailbox)
    answers: dict[str, list[Answer | str]] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    settings: Settings = field(default_factory=lambda: load({}))
    registry: ActionRegistry = field(default_factory=ActionRegistry)

    def names(self) -> list[str]:
        return [request.what for request in self.asked]

    async def handle(self, request: web.Request) -> web.Response:
        content = await request.read()
        what = f"{request.method} {request.path}"
        key = request.headers.get("Idempotency-Key", "")
        self.asked.append(Asked(what, key, json.loads(content) if content else None))
        left = self.answers.get(what)
        answer = left.pop(0) if left else None
        if isinstance(answer, str):
            assert request.transport is not None
            request.transport.close()
            return web.Response()
        if answer is not None:
            return web.json_response(answer[1], status=answer[0], headers=self.headers)
        if request.path.startswith("/slack"):
            return web.Response(text="ok")
        return web.json_response({"order_id": "o-1", "event_id": "e-1", "asked": what})

    async def run(
        self,
        bench: Bench,
        actions: list[str],
        *,
        about: Message | None = None,
        reply: str | None = None,
        **limits: Any,
    ) -> SagaState:
        """Run the saga of these actions; ``about`` also gives it its ids."""
        state = self.state(actions, about=about, reply=reply)
        return await bench.deliver(state, bench.executor(registry=self.registry, **limits))

    def state(
        self, actions: list[str], *, about: Message | None = None, reply: str | None = None
    ) -> SagaState:
        """The saga of these actions, not begun."""
        about = about or building.message(entities=FULL)
        state = saga(processing_id=about.processing_id, lead_id=about.lead_id)
        state.message = about
        state.plan = building.plan(
            self.registry,
            actions,
            about=about,
            capabilities=capabilities(self.settings),
            reply=reply,
        )
        return state


# Everything that any action can use.
FULL: dict[str, Any] = {
    "product": "Widget X",
    "quantity": 100,
    "category": "widgets",
    "volume": 250,
    "location": "Berlin",
    "date": "2026-12-24",
    "order_id": "A-17",
    "preferred_date": "2026-12-01",
    "preferred_time": "3:30 pm",
    "purpose": "a quote",
    "email": "customer@example.com",
}


@asynccontextmanager
async def outside(
    configure: Callable[[str, int], dict[str, str]] | None = None,
) -> AsyncIterator[Outside]:
    """The outside, with a registry of real clients that reach it as the settings say; by default
    everything is configured. ``configure`` gets the base URL and the mail server's port."""
    far = Outside()
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", far.handle)
    server = TestServer(app, host="127.0.0.1", access_log=None)
    await server.start_server()

    def protocol() -> Any:
        return aiosmtpd.SMTP(far.mailbox, hostname="localhost")

    async with listening(protocol) as port:
        far.settings = load((configure or everything)(str(server.make_url("")).rstrip("/"), port))
        services = Services(far.settings)
        far.registry = default_actions(services.clients)
        try:
            yield far
        finally:
            await services.close()
            await server.close()


def everything(url: str, port: int) -> dict[str, str]:
    """The environment with every service, channel and text."""
    found = {f"STREAMAPP_{name.upper()}_SERVICE_URL": f"{url}/{name}" for name in SERVICES}
    found["STREAMAPP_SMTP_URL"] = f"smtp://127.0.0.1:{port}"
    found["STREAMAPP_MAIL_FROM"] = "Shop <shop@example.org>"
    for team, name in TEAMS.items():
        found[f"STREAMAPP_{name.upper()}_EMAIL"] = f"{team}@example.org"
        found[f"STREAMAPP_{name.upper()}_SLACK_WEBHOOK_URL"] = f"{url}/slack/{team}"
    found["STREAMAPP_TEXTS"] = json.dumps({topic: f"text of {topic}" for topic in TOPICS})
    return found


def nothing(url: str, port: int) -> dict[str, str]:
    """The environment without any."""
    return {}
