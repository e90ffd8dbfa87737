"""The status webhook: who is let in, and what WhatsApp is answered."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from pydantic import SecretStr

from streamapp.outbound.statuses import StatusUpdate
from streamapp.storage.deliveries import Applied
from streamapp.web import whatsapp as module
from streamapp.web.security import WEBHOOK_PATH
from streamapp.web.whatsapp import StatusWebhook

SECRET = b"app-secret"


class Far:
    """The database behind the webhook; ``error`` is raised instead of an answer."""

    def __init__(self) -> None:
        self.updates: list[StatusUpdate] = []
        self.told: list[tuple[str, str]] = []
        self.error: BaseException | None = None

    async def apply(self, update: StatusUpdate) -> Applied:
        if self.error is not None:
            raise self.error
        self.updates.append(update)
        return Applied.APPLIED


@pytest.fixture
def far() -> Far:
    return Far()


async def serving(webhook: StatusWebhook) -> TestClient[Any, Any]:
    app = web.Application()
    app.add_routes(webhook.routes())
    client = TestClient(TestServer(app))
    await client.start_server()
    return client


@pytest.fixture
async def client(far: Far) -> AsyncIterator[TestClient[Any, Any]]:
    webhook = StatusWebhook(
        SecretStr(SECRET.decode()),
        SecretStr("verify-me"),
        far.apply,
        lambda status, result: far.told.append((status, result)),
    )
    client = await serving(webhook)
    yield client
    await client.close()


def signed(body: bytes, secret: bytes = SECRET) -> dict[str, str]:
    return {"X-Hub-Signature-256": "sha256=" + hmac.new(secret, body, hashlib.sha256).hexdigest()}


def statuses(*names: str) -> bytes:
    told = [{"id": f"wamid.{n}", "status": n, "timestamp": "1700000000"} for n in names]
    value = {"messaging_product": "whatsapp", "statuses": told}
    return json.dumps({"entry": [{"changes": [{"value": value}]}]}).encode()


async def test_what_whatsapp_signed_is_written_down(client: TestClient[Any, Any], far: Far) -> None:
    body = statuses("sent", "delivered")
    answer = await client.post(WEBHOOK_PATH, data=body, headers=signed(body))
    assert answer.status == 200
    assert [update.status for update in far.updates] == ["sent", "delivered"]
    assert [status for status, _ in far.told] == ["sent", "delivered"]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-Hub-Signature-256": ""},
        {"X-Hub-Signature-256": "sha256="},
        {"X-Hub-Signature-256": hmac.new(SECRET, statuses("sent"), hashlib.sha256).hexdigest()},
        signed(statuses("sent"), b"another secret"),
        signed(statuses("read")),
    ],
)
async def test_what_it_did_not_sign_is_refused(
    client: TestClient[Any, Any], far: Far, headers: dict[str, str]
) -> None:
    answer = await client.post(WEBHOOK_PATH, data=statuses("sent"), headers=headers)
    assert answer.status == 401
    assert far.updates == []


async def test_a_signed_body_that_is_no_json(client: TestClient[Any, Any]) -> None:
    answer = await client.post(WEBHOOK_PATH, data=b"{", headers=signed(b"{"))
    assert answer.status == 400


@pytest.mark.parametrize(
    "body", [b"[]", b"1", b'{"entry": 1}', b'{"entry": [{"changes": [null]}]}']
)
async def test_a_document_of_another_shape_holds_no_statuses(
    client: TestClient[Any, Any], far: Far, body: bytes
) -> None:
    answer = await client.post(WEBHOOK_PATH, data=body, headers=signed(body))
    assert answer.status == 200
    assert far.updates == []


async def test_a_body_without_end_is_not_read(
    client: TestClient[Any, Any], far: Far, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_BODY", 1000)
    body = b" " * 1001
    assert (await client.post(WEBHOOK_PATH, data=body, headers=signed(body))).status == 413

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(11):
            yield b" " * 100

    assert (await client.post(WEBHOOK_PATH, data=pieces(), headers=signed(body))).status == 413
    assert far.updates == []


async def test_a_body_that_does_not_come_is_not_waited_for(
    client: TestClient[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "READ_WITHIN", 0.05)
    over = asyncio.Event()

    async def never() -> AsyncIterator[bytes]:
        yield b"{"
        await over.wait()

    assert (await client.post(WEBHOOK_PATH, data=never(), headers=signed(b"{"))).status == 408
    over.set()


async def test_while_the_database_is_away_whatsapp_is_to_tell_again(
    client: TestClient[Any, Any], far: Far
) -> None:
    far.error = ConnectionRefusedError("away")
    body = statuses("read")
    assert (await client.post(WEBHOOK_PATH, data=body, headers=signed(body))).status == 503
    assert far.told == []
    far.error = None
    assert (await client.post(WEBHOOK_PATH, data=body, headers=signed(body))).status == 200
    assert [update.status for update in far.updates] == ["read"]


@pytest.mark.parametrize(
    ("mode", "token", "status"),
    [
        ("subscribe", "verify-me", 200),
        ("subscribe", "verify-him", 403),
        ("subscribe", "", 403),
        ("unsubscribe", "verify-me", 403),
    ],
)
async def test_the_address_is_confirmed_to_who_knows_the_token(
    client: TestClient[Any, Any], mode: str, token: str, status: int
) -> None:
    query = {"hub.mode": mode, "hub.verify_token": token, "hub.challenge": "42"}
    answer = await client.get(WEBHOOK_PATH, params=query)
    assert answer.status == status
    assert (await answer.text() == "42") == (status == 200)


async def test_without_a_token_nobody_knows_it(far: Far) -> None:
    webhook = StatusWebhook(SecretStr("s"), None, far.apply, lambda *_: None)
    client = await serving(webhook)
    query = {"hub.mode": "subscribe", "hub.verify_token": "", "hub.challenge": "42"}
    assert (await client.get(WEBHOOK_PATH, params=query)).status == 403
    await client.close()
