"""The work as one would write it by hand: duplicate check, journal, three steps, each committed.

What is done is not done again after a crash: each step and the rows of its effect are one
transaction, a call to the order service is noted before it begins and repeated under its key.
"""

from __future__ import annotations

from typing import Any

import aiohttp
import asyncpg
import orjson

from benchmarks.contenders.place import Place

SEEN = "select 1 from processed_messages where message_id = $1"
BEGIN = """
insert into sagas (processing_id, lead_id, business_id, status, payload)
values ($1, $2, $3, 'RUNNING', $4) on conflict do nothing
"""
STARTED = """
insert into saga_steps (processing_id, step, status) values ($1, $2, 'STARTED')
on conflict do nothing
"""
DONE = """
insert into saga_steps (processing_id, step, status, result, finished_at)
values ($1, $2, 'DONE', $3, now())
on conflict (processing_id, step) do update
    set status = 'DONE', result = excluded.result, finished_at = now()
"""
ORDER = """
insert into orders (processing_id, lead_id, business_id, details) values ($1, $2, $3, $4)
on conflict do nothing
"""
NOTIFICATION = """
insert into notifications (processing_id, lead_id, team, text) values ($1, $2, 'sales', $3)
on conflict do nothing
"""
REPLY = """
insert into replies (processing_id, topic, key, value) values ($1, 'whatsapp-outbound', $2, $3)
on conflict do nothing
"""
ENDED = "update sagas set status = $2, updated_at = now() where processing_id = $1"
PROCESSED = """
insert into processed_messages (message_id, lead_id, status) values ($1, $2, $3)
on conflict do nothing
"""
DEAD_LETTER = """
insert into dead_letters (processing_id, key, value, reason) values ($1, $2, $3, $4)
"""
SETTINGS = {"synchronous_commit": "on"}


class Rejected(Exception):
    """The order service refuses the order for good."""


def dumps(value: Any) -> str:
    return orjson.dumps(value).decode()


async def order_from(http: aiohttp.ClientSession, service: str, message: dict[str, Any]) -> str:
    """Ask the order service for an order; gives its id, one of our own where there is no service.
    Raises ``Rejected``."""
    id_, entities = message["processing_id"], message["entities"]
    if not service:
        return f"order-{id_}"
    async with http.post(
        f"{service}/orders",
        data=orjson.dumps(
            {
                "processing_id": id_,
                "lead_id": message["lead_id"],
                "business_id": message["business_id"],
                "product": entities["product"],
                "entities": entities,
            }
        ),
        headers={"Idempotency-Key": id_, "Content-Type": "application/json"},
    ) as response:
        if 400 <= response.status < 500:
            raise Rejected(f"the order service answers {response.status}")
        response.raise_for_status()
        order_id: str = orjson.loads(await response.read())["order_id"]
        return order_id


def reply_to(message: dict[str, Any]) -> str:
    """The reply to the customer, as JSON."""
    return dumps(
        {
            "message_id": message["processing_id"],
            "lead_id": message["lead_id"],
            "text": f"Thank you for your order: {message['entities']['product']}.",
        }
    )


class Work:
    """``connections`` to the database at most; as many calls at a time as are asked for."""

    def __init__(self, place: Place, connections: int) -> None:
        self._place = place
        self._connections = connections
        self._pool: Any = None
        self._http: Any = None

    async def start(self) -> None:
        """Connect; harmless twice."""
        if self._pool is None:
            self._http = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
            self._pool = await asyncpg.create_pool(
                self._place.database,
                min_size=self._connections,
                max_size=self._connections,
                server_settings=SETTINGS,
            )

    async def handle(self, key: bytes, value: bytes) -> None:
        """All of the work for one record; durable on return."""
        try:
            message = orjson.loads(value)
        except orjson.JSONDecodeError:
            await self._pool.execute(DEAD_LETTER, None, key, value, "invalid_payload")
            return
        id_ = message["processing_id"]
        if not await self._begin(id_, message, value.decode()):
            return
        try:
            # No connection is held while the service is waited for.
            order = await order_from(self._http, self._place.service, message)
        except Rejected as error:
            await self._fail(id_, message, key, value, str(error))
            return
        await self._done(id_, message, order)

    async def _begin(self, id_: str, message: dict[str, Any], payload: str) -> bool:
        """False for a duplicate."""
        async with self._pool.acquire() as connection:
            if await connection.fetchval(SEEN, id_):
                return False
            lead, business = message["lead_id"], message["business_id"]
            await connection.execute(BEGIN, id_, lead, business, payload)
            if self._place.service:
                await connection.execute(STARTED, id_, "create_order")
        return True

    async def _done(self, id_: str, message: dict[str, Any], order: str) -> None:
        lead, business = message["lead_id"], message["business_id"]
        product = message["entities"]["product"]
        async with self._pool.acquire() as connection:
            async with connection.transaction():
                details = dumps({"order_id": order, **message["entities"]})
                await connection.execute(ORDER, id_, lead, business, details)
                await connection.execute(DONE, id_, "create_order", dumps({"order_id": order}))
            async with connection.transaction():
                await connection.execute(NOTIFICATION, id_, lead, f"{lead} orders {product}")
                await connection.execute(DONE, id_, "notify_sales", "{}")
            async with connection.transaction():
                await connection.execute(REPLY, id_, lead, reply_to(message))
                await connection.execute(DONE, id_, "reply", "{}")
            async with connection.transaction():
                await connection.execute(ENDED, id_, "COMPLETED")
                await connection.execute(PROCESSED, id_, lead, "success")

    async def _fail(
        self, id_: str, message: dict[str, Any], key: bytes, value: bytes, reason: str
    ) -> None:
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(DEAD_LETTER, id_, key, value, reason)
            await connection.execute(ENDED, id_, "FAILED")
            await connection.execute(PROCESSED, id_, message["lead_id"], "failed")
