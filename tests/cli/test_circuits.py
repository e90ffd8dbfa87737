"""circuits: asked over a worker's API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from pydantic import SecretStr

from streamapp.cli.circuits import _own_address
from streamapp.settings import load
from streamapp.web.security import middleware
from tests.cli.support import Ran, ran, refused

TOKEN = "a-token-of-16-or-more"
CIRCUITS = [{"name": "order", "state": "open", "calls": 5, "failures": 4}]


@pytest.fixture
async def serve() -> AsyncIterator[Callable[[web.Response], Awaitable[str]]]:
    servers: list[TestServer] = []

    async def serve(answer: web.Response) -> str:
        async def handler(request: web.Request) -> web.Response:
            return answer

        app = web.Application(middlewares=[middleware(SecretStr(TOKEN))])
        app.router.add_get("/api/circuits", handler)
        server = TestServer(app)
        await server.start_server()
        servers.append(server)
        return str(server.make_url("/"))

    yield serve
    for server in servers:
        await server.close()


async def listed(url: str, *options: str, token: str = TOKEN) -> Ran:
    env = {"STREAMAPP_ADMIN_TOKEN": token}
    return await asyncio.to_thread(ran, "circuits", "list", "--url", url, *options, env=env)


async def test_the_list(serve: Callable[[web.Response], Awaitable[str]]) -> None:
    url = await serve(web.json_response({"circuits": CIRCUITS}))
    found = await listed(url, "--json")
    assert (found.code, found.json) == (0, CIRCUITS)


async def test_the_table(serve: Callable[[web.Response], Awaitable[str]]) -> None:
    url = await serve(web.json_response({"circuits": CIRCUITS}))
    found = await listed(url)
    assert found.out.splitlines()[1].split() == ["order", "open", "5", "4"]


async def test_a_refusal_is_told(serve: Callable[[web.Response], Awaitable[str]]) -> None:
    url = await serve(web.json_response({"circuits": CIRCUITS}))
    found = await listed(url, token="another-token-of-16")
    refused(found, 1, "the admin token is missing or wrong")
    assert "another-token" not in found.err


async def test_what_is_no_worker_is_told(
    serve: Callable[[web.Response], Awaitable[str]],
) -> None:
    url = await serve(web.Response(text="<html>"))
    refused(await listed(url), 1, "gives no answer of a worker")


async def test_nobody_there_is_told() -> None:
    refused(await listed("http://127.0.0.1:1"), 1, "http://127.0.0.1:1")


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "http://127.0.0.1:7000"),
        ("0.0.0.0", "http://127.0.0.1:7000"),
        ("::1", "http://[::1]:7000"),
    ],
)
def test_the_own_worker_is_the_default(host: str, address: str) -> None:
    settings = load(
        {
            "STREAMAPP_WEB_HOST": host,
            "STREAMAPP_WEB_PORT": "7000",
            "STREAMAPP_ADMIN_TOKEN": TOKEN,
        }
    )
    assert _own_address(settings) == address
