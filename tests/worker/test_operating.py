"""What an operator does about a stuck order, with a worker as a process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import aiohttp.web
import asyncpg
import pytest

from tests.kafka.job import message, send
from tests.support.worker import WorkerProcess
from tests.worker.conftest import Stage

WITHIN = 40.0  # seconds; reached only by a test that fails
TOKEN = "a-token-of-16-or-more"


class Orders:
    """An order service. While it is ill it does what it is asked to create and answers 500, and
    cancels nothing. Orders are known by the key of their creation."""

    def __init__(self) -> None:
        self.ill = True
        self.standing: dict[str, str] = {}  # key: processing id
        self.keys: list[str] = []
        self.url = ""

    async def create(self, request: aiohttp.web.Request) -> aiohttp.web.Response:
        key = request.headers["Idempotency-Key"]
        self.keys.append(key)
        self.standing[key] = (await request.json())["processing_id"]
        if self.ill:
            return aiohttp.web.json_response({"error": "ill"}, status=500)
        return aiohttp.web.json_response({"order_id": f"order-{len(self.standing)}"})

    async def cancel(self, request: aiohttp.web.Request) -> aiohttp.web.Response:
        if self.ill:
            return aiohttp.web.json_response({"error": "ill"}, status=500)
        self.standing.pop(request.match_info["key"], None)
        return aiohttp.web.json_response({"cancelled": True})

    def of(self, processing_id: str) -> list[str]:
        """Keys of the orders that stand for a message."""
        return [key for key, id_ in self.standing.items() if id_ == processing_id]


@pytest.fixture
async def orders() -> AsyncIterator[Orders]:
    orders = Orders()
    app = aiohttp.web.Application()
    app.router.add_post("/orders", orders.create)
    app.router.add_post("/orders/{key}/cancel", orders.cancel)
    runner = aiohttp.web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await aiohttp.web.TCPSite(runner, "127.0.0.1", 0).start()
    orders.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield orders
    await runner.cleanup()


class Operator:
    """Commands at a shell, and calls of the API."""

    def __init__(self, worker: WorkerProcess) -> None:
        self._worker = worker

    async def run(self, *arguments: str) -> Any:
        code, out, err = await self._worker.run(*arguments, "--json")
        assert code == 0, err
        return json.loads(out)

    async def refused(self, *arguments: str) -> str:
        code, out, err = await self._worker.run(*arguments)
        assert (code, out) == (1, "")
        return err

    async def post(self, path: str, body: Any = None, token: str | None = TOKEN) -> tuple[int, Any]:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        url = f"http://127.0.0.1:{self._worker.port}{path}"
        async with (
            aiohttp.ClientSession() as session,
            session.post(url, json=body, headers=headers) as response,
        ):
            return response.status, await response.json()

    async def status(self, processing_id: str) -> str:
        status: str = (await self.run("sagas", "show", processing_id))["status"]
        return status

    async def letter(self, processing_id: str) -> str:
        code, out, _ = await self._worker.run("dlq", "show", processing_id, "--json")
        return str(json.loads(out)["status"]) if code == 0 else "not there yet"


async def comes(call: Callable[[], Awaitable[Any]], wanted: Any) -> None:
    """Wait until a question has this answer."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + WITHIN
    while (found := await call()) != wanted:
        assert loop.time() < deadline, f"{found}, not {wanted}"
        await asyncio.sleep(0.1)


async def audited(stage: Stage) -> list[tuple[str, str]]:
    connection = await asyncpg.connect(stage.environment["STREAMAPP_DATABASE_URL"])
    try:
        rows = await connection.fetch("select action, target from audit_log order by audit_id")
        return [(row["action"], row["target"]) for row in rows]
    finally:
        await connection.close()


async def test_a_stuck_order_is_seen_resumed_and_redriven(stage: Stage, orders: Orders) -> None:
    stage.create_topics(2)
    worker = stage.worker(
        STREAMAPP_ORDER_SERVICE_URL=orders.url,
        STREAMAPP_RETRY_DELAYS="0.05",
        STREAMAPP_STUCK_DELAYS="3600",
        STREAMAPP_ADMIN_TOKEN=TOKEN,
        STREAMAPP_CIRCUIT_MIN_CALLS="1000",
    )
    worker.start()
    await worker.wait_until_ready()
    operator = Operator(worker)
    await send(
        worker.settings,
        [
            (f"lead of {name}".encode(), message(name, f"lead of {name}", "ORDER_REQUEST"))
            for name in ("healed", "by-hand")
        ],
    )
    await comes(lambda: metric(worker), {("parked",): 2.0, ("given_up",): 0.0})
    listed = await operator.run("sagas", "list", "--stuck")
    assert {row["processing_id"] for row in listed} == {"healed", "by-hand"}
    assert {row["level"] for row in listed} == {"parked"}
    assert all(row["resume_at"] and row["reason"] == "compensation_stuck" for row in listed)
    await comes(lambda: operator.letter("healed"), "failed")
    assert "resume it" in await operator.refused("dlq", "retry", "healed")
    assert len(orders.of("healed")) == 1

    orders.ill = False
    assert (await operator.run("sagas", "resume", "healed", "--by", "ann"))["requested"] is True
    await comes(lambda: operator.status("healed"), "COMPENSATED")
    assert orders.of("healed") == [], "net zero"
    assert await operator.letter("healed") == "failed", "undone is not done"
    assert "is COMPENSATED, not STUCK" in await operator.refused("sagas", "resume", "healed")

    resolve = "/api/sagas/by-hand/resolve"
    assert (await operator.post(resolve, {"reason": "x"}, token=None))[0] == 401
    assert (await operator.post(resolve))[0] == 400
    status, answer = await operator.post(resolve, {"reason": "cancelled by phone", "by": "bob"})
    assert (status, answer["kind"]) == (202, "resolve")
    await comes(lambda: operator.status("by-hand"), "RESOLVED")
    await comes(lambda: operator.letter("by-hand"), "resolved")
    assert len(orders.of("by-hand")) == 1, "nobody said that it was undone"
    assert (await operator.post("/api/dlq/by-hand/retry"))[0] == 409
    await comes(lambda: metric(worker), {("parked",): 0.0, ("given_up",): 0.0})

    (old,) = {key for key in orders.keys if key not in orders.of("by-hand")}
    sent = await operator.run("dlq", "retry", "healed")
    assert sent["status"] == "retrying"
    await comes(lambda: operator.status("healed"), "COMPLETED")
    (new,) = orders.of("healed")
    assert new != old, "a new order, not the replay of the cancelled one"
    await comes(lambda: operator.letter("healed"), "resolved")
    saga = await operator.run("sagas", "show", "healed")
    assert saga["run"] == 1
    assert [request["result"] for request in saga["requests"]] == ["resumed"]
    assert await audited(stage) == [
        ("saga.resume", "healed"),
        ("saga.resume.carried_out", "healed"),
        ("saga.resolve", "by-hand"),
        ("saga.resolve.carried_out", "by-hand"),
        ("dlq.retry", sent["dead_letter_id"]),
    ]
    assert await worker.stop() == 0


async def metric(worker: WorkerProcess) -> dict[tuple[str, ...], float]:
    return (await worker.metrics()).get("streamapp_sagas_stuck", {})
