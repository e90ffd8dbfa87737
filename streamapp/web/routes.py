"""The API: health, metrics, and what people ask about the worker and its data."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import orjson
import structlog
from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from pydantic import SecretStr

from streamapp.storage.faults import DATABASE_ERRORS, Fault, fault_of
from streamapp.storage.operations import Refused, Unknown
from streamapp.storage.queries import MAX_ROWS
from streamapp.storage.requests import Asked, RequestKind
from streamapp.web.security import middleware
from streamapp.web.whatsapp import StatusWebhook
from streamapp.worker.redrive import NotConfirmed, Sent

MAX_OFFSET = 1_000_000
QUERY_TIMEOUT = 10.0  # seconds for the data of one answer
MAX_ACTOR = 256  # characters

_FAUST_INDEX = "faust.web.apps.production_index:blueprint"

log = structlog.get_logger(__name__)

Json = dict[str, Any]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Circuit(Protocol):
    """A circuit breaker, as ``resilience.circuit_breaker.CircuitBreaker`` is one."""

    def snapshot(self) -> Json: ...
    def reset(self) -> None: ...
    def force_open(self) -> None: ...
    def disable(self) -> None: ...


class Circuits(Protocol):
    """The circuits of this worker."""

    def find(self, name: str) -> Circuit | None: ...
    def all(self) -> Sequence[Circuit]: ...


class DataViews(Protocol):
    """What the database tells, masked, as ``storage.queries.Queries`` does."""

    async def dead_letters(
        self, status: str | None, reason: str | None, limit: int, offset: int
    ) -> list[Json]: ...
    async def dead_letter(self, name: str) -> Json | None: ...
    async def saga(self, processing_id: str) -> Json | None: ...
    async def stats(self) -> Json: ...


class DeadLetters(Protocol):
    """Sends dead letters again, as ``worker.redrive.Redriver`` does."""

    async def retry(self, name: str, actor: str, value: bytes | None = None) -> Sent: ...


class Requests(Protocol):
    """Takes requests on STUCK sagas in, as ``storage.requests.SagaRequests`` does."""

    async def ask(
        self, kind: RequestKind, processing_id: str, actor: str, reason: str | None = None
    ) -> Asked: ...


@dataclass(frozen=True, slots=True)
class Views:
    """Where the routes take their data from.

    ``readiness`` names each condition and whether it holds: ready when all do. ``worker`` gives
    this process's own figures for ``/api/stats``. ``webhook`` hears of statuses, where somebody
    may tell them.
    """

    readiness: Callable[[], Mapping[str, bool]]
    worker: Callable[[], Json]
    circuits: Circuits
    data: DataViews
    redriver: DeadLetters
    requests: Requests
    registry: CollectorRegistry
    webhook: StatusWebhook | None = None


def routes(views: Views) -> list[web.RouteDef]:
    """All routes; ``security.middleware`` guards them."""
    api = _Api(views)
    return [
        web.get("/health/live", api.live),
        web.get("/health/ready", api.ready),
        web.get("/metrics", api.metrics),
        web.get("/api/stats", api.stats),
        web.get("/api/circuits", api.circuits),
        web.post("/api/circuits/{name}/{action:reset|force-open|disable}", api.set_circuit),
        web.get("/api/dlq", api.dead_letters),
        web.get("/api/dlq/{id}", api.dead_letter),
        web.post("/api/dlq/{id}/retry", api.retry),
        web.get("/api/sagas/{processing_id}", api.saga),
        web.post("/api/sagas/{processing_id}/{kind:resume|resolve}", api.ask),
        *(views.webhook.routes() if views.webhook is not None else ()),
    ]


def install(app: Any, views: Views, admin_token: SecretStr | None) -> None:
    """Put the routes and their guard into a Faust app's web server, before it starts.

    Faust's table and router pages stay only where the app's settings (``web_tables_enabled``,
    ``web_router_enabled``) have them on; they are guarded too. Its index page goes: ``/`` is
    ours.
    """
    server = app.web
    # Faust has no public way to take a page out.
    enabled = server.blueprints._enabled
    enabled[:] = [entry for entry in enabled if entry[1] != _FAUST_INDEX]
    server.web_app.middlewares.append(middleware(admin_token))
    server.web_app.add_routes(routes(views))


class _Api:
    """The handlers."""

    def __init__(self, views: Views) -> None:
        self._views = views

    async def live(self, request: web.Request) -> web.Response:
        return _answer({"live": True})

    async def ready(self, request: web.Request) -> web.Response:
        checks = dict(self._views.readiness())
        ready = all(checks.values())
        return _answer({"ready": ready, "checks": checks}, 200 if ready else 503)

    async def metrics(self, request: web.Request) -> web.Response:
        # In a thread: thousands of lines take longer than the event loop should stand still.
        body = await asyncio.to_thread(generate_latest, self._views.registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def stats(self, request: web.Request) -> web.Response:
        answer: Json = {"worker": self._views.worker()}
        try:
            answer["database"] = await _within_time(self._views.data.stats())
        except DATABASE_ERRORS:
            answer["database"] = None
        return _answer(answer)

    async def circuits(self, request: web.Request) -> web.Response:
        return _answer({"circuits": [each.snapshot() for each in self._views.circuits.all()]})

    async def set_circuit(self, request: web.Request) -> web.Response:
        name, action = request.match_info["name"], request.match_info["action"]
        circuit = self._views.circuits.find(name)
        if circuit is None:
            return _answer({"error": "there is no such circuit"}, 404)
        if action == "reset":
            circuit.reset()
        elif action == "force-open":
            circuit.force_open()
        else:
            circuit.disable()
        log.warning("circuit_set", circuit=name, action=action, by=request.remote)
        return _answer(circuit.snapshot())

    async def dead_letters(self, request: web.Request) -> web.Response:
        query = request.query
        try:
            limit, offset = int(query.get("limit", "50")), int(query.get("offset", "0"))
            if not (1 <= limit <= MAX_ROWS and 0 <= offset <= MAX_OFFSET):
                raise ValueError
        except ValueError:
            return _answer({"error": f"limit is 1 to {MAX_ROWS}, offset 0 to {MAX_OFFSET}"}, 400)
        status, reason = query.get("status"), query.get("reason")
        return await _from_database(
            self._views.data.dead_letters(status, reason, limit, offset), "dead_letters"
        )

    async def dead_letter(self, request: web.Request) -> web.Response:
        return await _from_database(self._views.data.dead_letter(request.match_info["id"]))

    async def saga(self, request: web.Request) -> web.Response:
        return await _from_database(self._views.data.saga(request.match_info["processing_id"]))

    async def retry(self, request: web.Request) -> web.Response:
        """Body, optional: ``value_base64`` to send in place of the letter's value, ``by``."""
        try:
            body = await _body(request)
            edited = _text(body, "value_base64")
            value = None if edited is None else base64.b64decode(edited, validate=True)
            actor = _actor(request, body)
        except ValueError as error:
            return _answer({"error": f"the body is not understood: {error}"}, 400)
        return await _asked(self._views.redriver.retry(request.match_info["id"], actor, value))

    async def ask(self, request: web.Request) -> web.Response:
        """Body: ``reason``, needed to resolve; ``by``."""
        kind = RequestKind(request.match_info["kind"])
        try:
            body = await _body(request)
            reason, actor = _text(body, "reason"), _actor(request, body)
        except ValueError as error:
            return _answer({"error": f"the body is not understood: {error}"}, 400)
        if kind is RequestKind.RESOLVE and not (reason or "").strip():
            return _answer({"error": "resolving a saga needs a reason"}, 400)
        processing_id = request.match_info["processing_id"]
        return await _asked(self._views.requests.ask(kind, processing_id, actor, reason))


async def _body(request: web.Request) -> Json:
    """The JSON object that a request carries, empty where there is none. Raises ``ValueError``."""
    content = await request.read()
    document = orjson.loads(content) if content.strip() else {}
    if not isinstance(document, dict):
        raise ValueError("it must be a JSON object")
    return document


def _text(body: Json, name: str) -> str | None:
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{name} must be a text")
    return value


def _actor(request: web.Request, body: Json) -> str:
    """Who asks, for the audit log: the token says only that they may."""
    name = (_text(body, "by") or "").strip()
    if not name:
        return f"api {request.remote}"
    if len(name) > MAX_ACTOR or not name.isprintable():
        raise ValueError(f"by must be at most {MAX_ACTOR} printable characters")
    return name


async def _asked(call: Awaitable[Sent | Asked]) -> web.Response:
    """202: it will be done; 404, 409: it cannot be; 503: it may be asked again."""
    try:
        done = await call
    except Unknown as refused:
        return _answer({"error": str(refused)}, 404)
    except Refused as refused:
        return _answer({"error": str(refused)}, 409)
    except NotConfirmed as error:
        return _answer({"error": str(error)}, 503)
    except DATABASE_ERRORS as error:
        if fault_of(error) is Fault.ROW:
            return _answer({"error": "there is nothing of that name"}, 404)
        return _answer({"error": "the database cannot be reached"}, 503)
    return _answer(done.to_json(), 202)


async def _from_database(call: Awaitable[Any], name: str | None = None) -> web.Response:
    """The call's result, under a name if one is given; 404 for none, 503 during an outage."""
    try:
        found = await _within_time(call)
    except DATABASE_ERRORS as error:
        if fault_of(error) is not Fault.ROW:
            return _answer({"error": "the database cannot be reached"}, 503)
        found = None  # a name with a NUL in it: nothing in the database has such a name
    if found is None:
        return _answer({"error": "there is nothing of that name"}, 404)
    return _answer(found if name is None else {name: found})


async def _within_time(call: Awaitable[Any]) -> Any:
    async with asyncio.timeout(QUERY_TIMEOUT):
        return await call


def _answer(body: Json, status: int = 200) -> web.Response:
    return web.Response(
        body=orjson.dumps(body), status=status, content_type="application/json", charset="utf-8"
    )
