"""The API's answers, with the data behind it replaced by plain values."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import asyncpg
import faust
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from streamapp.observability.metrics import Metrics
from streamapp.pipeline.redrive import Redrive
from streamapp.resilience.circuit_breaker import CircuitBreakers, CircuitState
from streamapp.storage.operations import Refused, Unknown
from streamapp.storage.redrives import Redriven
from streamapp.storage.requests import Asked, RequestKind
from streamapp.web.routes import MAX_OFFSET, Views, install, routes
from streamapp.web.security import middleware
from streamapp.worker.redrive import BrokerRefused, NotConfirmed, Sent

Client = TestClient[web.Request, web.Application]
TOKEN = "a-token-of-16-or-more"


class Data:
    """Canned answers; ``error`` is raised instead where it is set."""

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self.asked: list[Any] = []

    async def _answer(self, answer: Any, *asked: Any) -> Any:
        self.asked = list(asked)
        if self.error is not None:
            raise self.error
        return answer

    async def stats(self) -> dict[str, Any]:
        return await self._answer({"sagas": {"COMPLETED": 2}})  # type: ignore[no-any-return]

    async def dead_letters(self, *asked: Any) -> list[dict[str, Any]]:
        return await self._answer([{"dead_letter_id": "d"}], *asked)  # type: ignore[no-any-return]

    async def dead_letter(self, name: str) -> dict[str, Any] | None:
        return await self._answer({"dead_letter_id": name} if name == "d/1" else None, name)  # type: ignore[no-any-return]

    async def saga(self, name: str) -> dict[str, Any] | None:
        return await self._answer({"status": "COMPLETED"} if name == "m 1" else None, name)  # type: ignore[no-any-return]


class Operations:
    """What is asked for, and a canned answer; ``error`` is raised instead where it is set."""

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self.asked: list[tuple[Any, ...]] = []

    async def retry(self, name: str, actor: str, value: bytes | None = None) -> Sent:
        self.asked.append(("retry", name, actor, value))
        if self.error is not None:
            raise self.error
        redrive = Redrive("letter-1", 0, "")
        return Sent(Redriven("d", "m", redrive, "ai-results", 3, b"k", value, ()), 17)

    async def ask(
        self, kind: RequestKind, processing_id: str, actor: str, reason: str | None = None
    ) -> Asked:
        self.asked.append((str(kind), processing_id, actor, reason))
        if self.error is not None:
            raise self.error
        return Asked(processing_id, 7, kind, datetime(2026, 5, 1, tzinfo=UTC), False)


class Worker:
    """All that the routes ask."""

    def __init__(self) -> None:
        self.conditions = {"database": True, "broker": True}
        self.data = Data()
        self.operations = Operations()
        self.breakers = CircuitBreakers()
        self.breakers.get("order")
        self.registry = CollectorRegistry()
        Metrics(self.registry)
        self.views = Views(
            readiness=lambda: self.conditions,
            worker=lambda: {"in_flight": 3},
            circuits=self.breakers,
            data=self.data,
            redriver=self.operations,
            requests=self.operations,
            registry=self.registry,
        )


@pytest.fixture
def worker() -> Worker:
    return Worker()


@pytest.fixture
async def client(worker: Worker) -> AsyncIterator[Client]:
    app = web.Application()
    app.add_routes(routes(worker.views))
    async with TestClient(TestServer(app)) as client:
        yield client


async def get(client: Client, path: str, method: str = "GET") -> tuple[int, Any]:
    async with client.request(method, path) as response:
        assert response.content_type == "application/json"
        return response.status, await response.json()


async def test_live_whatever_the_conditions(worker: Worker, client: Client) -> None:
    worker.conditions["database"] = False
    assert await get(client, "/health/live") == (200, {"live": True})


async def test_ready_when_every_condition_holds(worker: Worker, client: Client) -> None:
    conditions = {"database": True, "broker": True}
    assert await get(client, "/health/ready") == (200, {"ready": True, "checks": conditions})
    worker.conditions["broker"] = False
    conditions["broker"] = False
    assert await get(client, "/health/ready") == (503, {"ready": False, "checks": conditions})


async def test_metrics_in_the_text_format(client: Client) -> None:
    async with client.get("/metrics") as response:
        assert response.status == 200
        assert response.headers["Content-Type"].startswith("text/plain; version=")
        assert 'streamapp_messages_processed_total{outcome="processed"} 0.0' in (
            await response.text()
        )


async def test_stats_come_from_worker_and_database(worker: Worker, client: Client) -> None:
    expected = {"worker": {"in_flight": 3}, "database": {"sagas": {"COMPLETED": 2}}}
    assert await get(client, "/api/stats") == (200, expected)
    worker.data.error = OSError("away")
    assert await get(client, "/api/stats") == (200, {**expected, "database": None})


async def test_circuits_are_listed(client: Client) -> None:
    status, answer = await get(client, "/api/circuits")
    assert status == 200
    assert [(c["name"], c["state"]) for c in answer["circuits"]] == [("order", "closed")]


@pytest.mark.parametrize(
    ("action", "state"),
    [
        ("force-open", CircuitState.FORCED_OPEN),
        ("disable", CircuitState.DISABLED),
        ("reset", CircuitState.CLOSED),
    ],
)
async def test_circuits_are_set(
    worker: Worker, client: Client, action: str, state: CircuitState
) -> None:
    breaker = worker.breakers.get("order")
    breaker.disable() if state is not CircuitState.DISABLED else breaker.force_open()
    status, answer = await get(client, f"/api/circuits/order/{action}", "POST")
    assert (status, answer["state"]) == (200, state.value)
    assert breaker.state is state


async def test_an_unknown_circuit_is_not_made(worker: Worker, client: Client) -> None:
    status, _ = await get(client, "/api/circuits/nobody/reset", "POST")
    assert status == 404
    assert [breaker.name for breaker in worker.breakers.all()] == ["order"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/api/circuits/order/reset", 405), ("POST", "/api/circuits/order/explode", 404)],
)
async def test_circuits_are_set_by_post_and_known_actions_only(
    client: Client, method: str, path: str, status: int
) -> None:
    async with client.request(method, path) as response:
        assert response.status == status


async def test_dead_letters_are_listed(worker: Worker, client: Client) -> None:
    expected = {"dead_letters": [{"dead_letter_id": "d"}]}
    assert await get(client, "/api/dlq") == (200, expected)
    assert worker.data.asked == [None, None, 50, 0]
    await get(client, "/api/dlq?status=failed&reason=handler_error&limit=7&offset=14")
    assert worker.data.asked == ["failed", "handler_error", 7, 14]


@pytest.mark.parametrize(
    "query",
    ["limit=x", "limit=0", "limit=501", "offset=-1", f"offset={MAX_OFFSET + 1}", "limit="],
)
async def test_wrong_numbers_are_told(client: Client, query: str) -> None:
    status, answer = await get(client, f"/api/dlq?{query}")
    assert status == 400
    assert "limit" in answer["error"]


async def test_names_are_taken_as_they_are(worker: Worker, client: Client) -> None:
    assert await get(client, "/api/dlq/d%2F1") == (200, {"dead_letter_id": "d/1"})
    assert await get(client, "/api/sagas/m%201") == (200, {"status": "COMPLETED"})


@pytest.mark.parametrize("path", ["/api/dlq/x", "/api/sagas/x"])
async def test_what_is_not_there_is_not_found(client: Client, path: str) -> None:
    status, answer = await get(client, path)
    assert status == 404
    assert answer["error"]


@pytest.mark.parametrize("path", ["/api/dlq", "/api/dlq/x", "/api/sagas/x"])
@pytest.mark.parametrize(
    ("error", "status"),
    [
        (OSError("password=hunter2"), 503),
        (TimeoutError(), 503),
        (asyncpg.InternalClientError("got nothing"), 503),
        (asyncpg.CharacterNotInRepertoireError("NUL"), 404),
        (asyncpg.UndefinedTableError("not migrated"), 503),
        (KeyError("a defect of ours"), 500),
    ],
)
async def test_an_outage_is_told_as_one_and_nothing_else_is(
    worker: Worker, client: Client, path: str, error: BaseException, status: int
) -> None:
    worker.data.error = error
    async with client.get(path) as response:
        assert response.status == status
        assert "hunter2" not in await response.text()


async def post(client: Client, path: str, body: Any = None) -> tuple[int, Any]:
    async with client.post(path, json=body) as response:
        return response.status, await response.json()


async def test_a_dead_letter_is_sent_again(worker: Worker, client: Client) -> None:
    status, answer = await post(client, "/api/dlq/d%2F1/retry")
    assert (status, answer["offset"], answer["status"]) == (202, 17, "retrying")
    edited = base64.b64encode(b"\xff").decode()
    await post(client, "/api/dlq/d/retry", {"value_base64": edited, "by": " ann "})
    assert worker.operations.asked == [
        ("retry", "d/1", "api 127.0.0.1", None),
        ("retry", "d", "ann", b"\xff"),
    ]


async def test_a_stuck_saga_is_asked_for(worker: Worker, client: Client) -> None:
    status, answer = await post(client, "/api/sagas/m%201/resume", {"by": "ann"})
    assert (status, answer["kind"], answer["request_id"]) == (202, "resume", 7)
    status, answer = await post(client, "/api/sagas/m%201/resolve", {"reason": "by phone"})
    assert (status, answer["kind"]) == (202, "resolve")
    assert worker.operations.asked == [
        ("resume", "m 1", "ann", None),
        ("resolve", "m 1", "api 127.0.0.1", "by phone"),
    ]


PATHS = ["/api/dlq/d/retry", "/api/sagas/m/resume", "/api/sagas/m/resolve"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Unknown("there is no such thing"), 404),
        (Refused("it is not so"), 409),
        (BrokerRefused("too large"), 409),
        (NotConfirmed("ask again"), 503),
        (OSError("password=hunter2"), 503),
        (asyncpg.CharacterNotInRepertoireError("NUL"), 404),
        (asyncpg.UndefinedTableError("not migrated"), 503),
    ],
)
async def test_what_cannot_be_done_is_said(
    worker: Worker, client: Client, path: str, error: BaseException, status: int
) -> None:
    worker.operations.error = error
    found, answer = await post(client, path, {"reason": "x"})
    assert found == status
    assert answer["error"]
    assert "hunter2" not in str(answer)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (PATHS[0], b"no JSON"),
        (PATHS[0], b"[]"),
        (PATHS[0], b'{"value_base64": "?"}'),
        (PATHS[0], b'{"value_base64": 5}'),
        (PATHS[1], b'{"by": 5}'),
        (PATHS[1], b'{"by": "a\\nb"}'),
        (PATHS[1], b'{"by": "' + b"x" * 257 + b'"}'),
        (PATHS[2], b""),
        (PATHS[2], b'{"reason": " "}'),
        (PATHS[2], b'{"reason": 5}'),
    ],
)
async def test_a_body_that_is_not_understood_asks_for_nothing(
    worker: Worker, client: Client, path: str, body: bytes
) -> None:
    async with client.post(path, data=body) as response:
        assert response.status == 400
        assert (await response.json())["error"]
    assert worker.operations.asked == []


async def test_changes_need_the_token_and_come_from_no_other_site(worker: Worker) -> None:
    app = web.Application(middlewares=[middleware(SecretStr(TOKEN))])
    app.add_routes(routes(worker.views))
    right = {"Authorization": f"Bearer {TOKEN}"}
    async with TestClient(TestServer(app)) as client:
        for path in PATHS:
            for headers, expected in [
                ({}, 401),
                ({"Authorization": "Bearer wrong"}, 401),
                ({**right, "Origin": "https://elsewhere.example"}, 403),
                ({**right, "Sec-Fetch-Site": "cross-site"}, 403),
                (right, 202),
            ]:
                async with client.post(path, json={"reason": "x"}, headers=headers) as response:
                    assert response.status == expected, (path, headers)
            async with client.get(path, headers=right) as response:
                assert response.status == 405
    assert len(worker.operations.asked) == len(PATHS)


async def test_installed_in_a_faust_app_its_own_pages_are_gone_and_ours_guarded(
    worker: Worker,
) -> None:
    app = faust.App(
        "test",
        broker="kafka://127.0.0.1:1",
        store="memory://",
        web_tables_enabled=False,
        web_router_enabled=False,
    )
    install(app, worker.views, SecretStr(TOKEN))
    app.web.init_server()
    server: Any = app.web.web_app
    right = {"Authorization": f"Bearer {TOKEN}"}
    async with TestClient(TestServer(server)) as client:
        for path, headers, expected in [
            ("/health/live", {}, 200),
            ("/api/circuits", {}, 401),
            ("/api/circuits", right, 200),
            ("/", right, 404),
            ("/table/", right, 404),
            ("/router/", right, 404),
            ("/stats/", right, 404),
            ("/graph/", right, 404),
        ]:
            async with client.get(path, headers=headers) as response:
                assert response.status == expected, path
