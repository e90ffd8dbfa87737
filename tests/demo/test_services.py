"""The demo's services keep the contract that the docs ask of real ones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from pydantic import SecretStr

from streamapp.demo import services
from streamapp.demo.services import DISCONTINUED, Call, MailServer, OrderService, Outage
from streamapp.services.email import Mailer
from streamapp.services.errors import Retryable

DEADLINE = 30.0


class Client:
    """Asks the order service; gives status and body."""

    def __init__(self, session: aiohttp.ClientSession, base: str) -> None:
        self._session = session
        self._base = base

    async def create(self, key: str | None, product: str = "Desk lamp") -> tuple[int, Any]:
        headers = {} if key is None else {"Idempotency-Key": key}
        return await self.post("/orders", headers, {"product": product})

    async def cancel(self, key: str) -> tuple[int, Any]:
        return await self.post(f"/orders/{key}/cancel", {"Idempotency-Key": f"undo-{key}"}, {})

    async def post(self, path: str, headers: dict[str, str], body: Any) -> tuple[int, Any]:
        url = self._base + path
        async with self._session.post(url, json=body, headers=headers) as response:
            return response.status, await response.json()


class Gate:
    """Holds work up until it is opened."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.reached = asyncio.Event()
        self.open.set()

    async def pass_(self) -> None:
        self.reached.set()
        await self.open.wait()


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
async def orders(gate: Gate) -> AsyncIterator[OrderService]:
    service = OrderService(work=gate.pass_)
    yield service
    await service.stop()


@pytest.fixture
async def client(orders: OrderService) -> AsyncIterator[Client]:
    base = await orders.start()
    async with aiohttp.ClientSession() as session:
        yield Client(session, base)


async def test_the_same_key_gives_the_same_order(orders: OrderService, client: Client) -> None:
    first = await client.create("a")
    again = await client.create("a")
    other = await client.create("b")
    assert first[0] == 200
    assert first == again
    assert other[0] == 200
    assert other != first
    assert orders.order_id("a") == first[1]["order_id"]
    assert orders.standing == 2
    assert list(orders.ledger) == [
        Call("create", "a", 200),
        Call("create", "a", 200),
        Call("create", "b", 200),
    ]
    assert orders.answers["create", 200] == 3


async def test_a_cancelled_order_is_never_created_again(
    orders: OrderService, client: Client
) -> None:
    _, created = await client.create("a")
    assert await client.cancel("a") == (200, {"cancelled": True, **created})
    assert (await client.cancel("a"))[0] == 200
    assert (await client.create("a"))[0] == 410
    assert orders.order_id("a") is None
    assert orders.standing == 0


async def test_a_cancel_that_comes_first_prevents_the_order(
    orders: OrderService, client: Client
) -> None:
    assert (await client.cancel("a"))[0] == 404
    assert (await client.create("a"))[0] == 410
    assert (await client.cancel("a"))[0] == 404
    assert orders.standing == 0
    assert orders.ledger[0] == Call("cancel", "a", 404)


async def test_an_order_can_be_looked_up(client: Client) -> None:
    _, created = await client.create("a")
    path = "/lookups/fetch_order_details"
    assert await client.post(path, {}, created) == (200, {**created, "state": "created"})
    await client.cancel("a")
    assert await client.post(path, {}, created) == (200, {**created, "state": "cancelled"})
    for unknown in ({"order_id": "order-999999"}, {"order_id": None}, {}):
        assert (await client.post(path, {}, unknown))[0] == 404


async def test_a_key_in_progress_is_busy(orders: OrderService, client: Client, gate: Gate) -> None:
    gate.open.clear()
    async with asyncio.timeout(DEADLINE), asyncio.TaskGroup() as group:
        first = group.create_task(client.create("a"))
        await gate.reached.wait()
        assert (await client.create("a"))[0] == 409
        assert (await client.cancel("a"))[0] == 409
        gate.open.set()
    assert (await first)[0] == 200
    assert (await client.create("a")) == await first


async def test_a_discontinued_product_is_refused_for_good(
    orders: OrderService, client: Client
) -> None:
    assert (await client.create("a", DISCONTINUED))[0] == 422
    assert (await client.create("a", DISCONTINUED))[0] == 422
    assert (await client.cancel("a"))[0] == 404


async def test_what_is_no_order_is_refused(client: Client) -> None:
    assert (await client.create(None))[0] == 400
    assert (await client.post("/orders", {"Idempotency-Key": "a"}, ["list"]))[0] == 400


async def test_an_outage_of_some_calls(orders: OrderService, client: Client) -> None:
    await client.create("a")
    orders.outage.fail_for(calls=2)
    assert (await client.create("b"))[0] == 503
    assert (await client.cancel("a"))[0] == 503
    assert orders.standing == 1
    assert (await client.create("b"))[0] == 200


async def test_memory_is_bounded(
    monkeypatch: pytest.MonkeyPatch, orders: OrderService, client: Client
) -> None:
    monkeypatch.setattr(services, "MEMORY", 2)
    for key in "abc":
        await client.create(key)
    assert [orders.order_id(key) is not None for key in "abc"] == [False, True, True]


def test_outages_end_by_calls_by_time_or_when_told() -> None:
    now = 100.0
    outage = Outage(clock=lambda: now)
    assert not outage.strikes()
    outage.fail_for(seconds=5)
    now = 104.9
    assert outage.strikes()
    now = 105.0
    assert not outage.strikes()
    outage.fail_for(calls=1)
    assert [outage.strikes(), outage.strikes()] == [True, False]
    outage.fail_until_ended()
    now = 1e9
    assert outage.strikes()
    outage.end()
    assert not outage.strikes()
    outage.fail_for(calls=5, seconds=5)
    outage.end()
    assert not outage.strikes()


@pytest.fixture
async def mail() -> AsyncIterator[MailServer]:
    server = MailServer()
    yield server
    await server.stop()


async def test_mails_are_counted_by_their_id(mail: MailServer) -> None:
    mailer = Mailer(SecretStr(await mail.start()), "app@example.org")
    for message_id in ("one", "two", "one"):
        await mailer.send("to@example.org", "Hi", "Text", key="k", message_id=message_id)
    await mailer.close()
    assert mail.deliveries == {"<one@example.org>": 2, "<two@example.org>": 1}
    assert mail.accepted == 3


async def test_a_mail_server_fails_for_a_while(mail: MailServer) -> None:
    mailer = Mailer(SecretStr(await mail.start()), "app@example.org")
    mail.outage.fail_for(calls=1)
    with pytest.raises(Retryable, match="451") as caught:
        await mailer.send("to@example.org", "Hi", "Text", key="k")
    assert not caught.value.in_doubt
    assert (mail.accepted, mail.refused) == (0, 1)
    await mailer.send("to@example.org", "Hi", "Text", key="k")
    await mailer.close()
    assert mail.accepted == 1


async def test_the_mail_servers_memory_is_bounded(
    monkeypatch: pytest.MonkeyPatch, mail: MailServer
) -> None:
    monkeypatch.setattr(services, "MEMORY", 2)
    mailer = Mailer(SecretStr(await mail.start()), "app@example.org")
    for key in ("one", "two", "three"):
        await mailer.send("to@example.org", "Hi", "Text", key=key)
    await mailer.close()
    assert list(mail.deliveries) == ["<two@example.org>", "<three@example.org>"]
