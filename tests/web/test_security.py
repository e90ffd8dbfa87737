"""Who may call what: the token, foreign sites, and what stays open."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from pydantic import SecretStr

from streamapp.web.security import middleware

TOKEN = "a-token-of-16-or-more"
RIGHT = {"Authorization": f"Bearer {TOKEN}"}

Client = TestClient[web.Request, web.Application]
Connect = Callable[[str | None], Awaitable[Client]]


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    clients: list[Client] = []

    async def connect(token: str | None) -> Client:
        async def answer(request: web.Request) -> web.Response:
            return web.Response(text="done")

        app = web.Application(middlewares=[middleware(SecretStr(token) if token else None)])
        app.router.add_route("*", "/{path:.*}", answer)
        client: Client = TestClient(TestServer(app))
        await client.start_server()
        clients.append(client)
        return client

    yield connect
    for client in clients:
        await client.close()


async def status(client: Client, method: str, path: str, **headers: str) -> int:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with client.request(method, path, headers=named) as response:
        return response.status


@pytest.mark.parametrize("path", ["/", "/api/stats", "/api/dlq/x", "/table/", "/nowhere"])
async def test_reading_is_open_without_a_token_and_needs_it_with_one(
    connect: Connect, path: str
) -> None:
    assert await status(await connect(None), "GET", path) == 200
    client = await connect(TOKEN)
    assert await status(client, "GET", path) == 401
    assert await status(client, "HEAD", path) == 401
    assert await status(client, "GET", path, **RIGHT) == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
async def test_changing_always_needs_the_token(connect: Connect, method: str) -> None:
    assert await status(await connect(None), method, "/api/circuits/order/reset") == 401
    client = await connect(TOKEN)
    assert await status(client, method, "/api/circuits/order/reset") == 401
    assert await status(client, method, "/api/circuits/order/reset", **RIGHT) == 200


@pytest.mark.parametrize(
    "value",
    [
        "",
        "Bearer",
        "Bearer ",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        f"Bearer {TOKEN.upper()}",
        f"Basic {TOKEN}",
        TOKEN,
        "Bearer é",
    ],
)
async def test_a_wrong_token_is_refused(connect: Connect, value: str) -> None:
    client = await connect(TOKEN)
    async with client.get("/api/stats", headers={"Authorization": value}) as response:
        assert response.status == 401
        assert response.headers["WWW-Authenticate"] == "Bearer"
        assert TOKEN not in await response.text()


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/metrics"])
async def test_health_and_metrics_are_open(connect: Connect, path: str) -> None:
    client = await connect(TOKEN)
    assert await status(client, "GET", path) == 200
    assert await status(client, "GET", path, Host="worker.internal:6066") == 200


@pytest.mark.parametrize("path", ["/health", "/metrics/x", "/health/ready/", "/METRICS"])
async def test_nothing_near_them_is(connect: Connect, path: str) -> None:
    assert await status(await connect(TOKEN), "GET", path) == 401


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://127.0.0.1:1", "http://[", ""]
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_foreign_origin_is_refused_whatever_the_token(
    connect: Connect, method: str, origin: str
) -> None:
    client = await connect(TOKEN)
    assert await status(client, method, "/api/stats", **RIGHT, Origin=origin) == 403


async def test_the_own_origin_is_fine(connect: Connect) -> None:
    client = await connect(TOKEN)
    own = f"http://{client.host}:{client.port}"
    assert await status(client, "POST", "/api/x", **RIGHT, Origin=own) == 200


@pytest.mark.parametrize(
    ("site", "expected"),
    [("same-origin", 200), ("none", 200), ("same-site", 403), ("cross-site", 403), ("odd", 403)],
)
async def test_sec_fetch_site(connect: Connect, site: str, expected: int) -> None:
    client = await connect(TOKEN)
    assert await status(client, "POST", "/api/x", **RIGHT, Sec_Fetch_Site=site) == expected
    assert await status(client, "GET", "/api/x", **RIGHT, Sec_Fetch_Site=site) == expected


async def test_a_link_may_be_followed_but_changes_nothing(connect: Connect) -> None:
    client = await connect(TOKEN)
    followed = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate"}
    assert await status(client, "GET", "/", **RIGHT, **followed) == 200
    assert await status(client, "POST", "/api/x", **RIGHT, **followed) == 403


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1:6066", 200),
        ("localhost", 200),
        ("[::1]:6066", 200),
        ("evil.example:6066", 403),
        ("127.0.0.1.evil.example", 403),
        ("[", 403),
    ],
)
async def test_without_a_token_only_this_machines_names_are_served(
    connect: Connect, host: str, expected: int
) -> None:
    assert await status(await connect(None), "GET", "/api/stats", Host=host) == expected


async def test_with_a_token_any_name_is_served(connect: Connect) -> None:
    client = await connect(TOKEN)
    assert await status(client, "GET", "/api/stats", **RIGHT, Host="worker.internal") == 200


async def test_answers_are_neither_cached_nor_framed(connect: Connect) -> None:
    client = await connect(None)
    async with client.get("/api/stats") as response:
        assert response.headers["Cache-Control"] == "no-store"
        assert response.headers["X-Frame-Options"] == "DENY"
        assert response.headers["X-Content-Type-Options"] == "nosniff"
