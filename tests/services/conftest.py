from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from aiosmtpd import smtp as aiosmtpd
from pydantic import SecretStr

from streamapp.services.http import HttpService
from tests.services.servers import TOKEN, Mailbox, Service, listening


@pytest.fixture
def far() -> Service:
    return Service()


@pytest.fixture
async def server(far: Service) -> AsyncIterator[TestServer]:
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", far.handle)
    server = TestServer(app, host="127.0.0.1", access_log=None)
    await server.start_server()
    yield server
    far.hang.set()
    await server.close()


@pytest.fixture
async def service(server: TestServer) -> AsyncIterator[HttpService]:
    service = HttpService("order", str(server.make_url("/api")), token=SecretStr(TOKEN))
    yield service
    await service.close()


@pytest.fixture
def mailbox() -> Mailbox:
    return Mailbox()


@pytest.fixture
async def port(mailbox: Mailbox) -> AsyncIterator[int]:
    def protocol() -> Any:
        return aiosmtpd.SMTP(
            mailbox,
            hostname="localhost",
            authenticator=mailbox.authenticate,
            auth_require_tls=False,
        )

    async with listening(protocol) as port:
        yield port
