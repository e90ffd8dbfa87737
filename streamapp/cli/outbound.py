"""``streamapp outbound``: what became of replies, and sending one again."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import click
from aiokafka.errors import KafkaError

from streamapp.cli.running import (
    Failed,
    by_option,
    json_option,
    limit_option,
    load_settings,
    print_fields,
    print_json,
    print_table,
    run,
    with_pool,
)
from streamapp.outbound.statuses import Status
from streamapp.settings import Settings
from streamapp.storage.delivery_views import Again, DeliveryRetries, DeliveryViews
from streamapp.storage.operations import Refused
from streamapp.worker.producer import Producer

CONFIRMED_WITHIN = 10.0  # seconds
STOP_WITHIN = 2.0  # seconds; a broker that went away meanwhile is not waited for


@click.group()
def outbound() -> None:
    """Look at replies on their way to customers, and send one again."""


@outbound.command("list")
@click.option("--status", type=click.Choice([status.value for status in Status]))
@click.option("--lead", help="Only those of this lead.")
@limit_option
@json_option
def list_(status: str | None, lead: str | None, limit: int, as_json: bool) -> None:
    """Deliveries, the most recently changed first, with phone numbers masked."""
    rows = run(
        with_pool(load_settings(), lambda pool: DeliveryViews(pool).list(status, lead, limit))
    )
    if as_json:
        print_json(rows)
        return
    columns = ("message_id", "lead_id", "recipient", "status", "reason", "error_code", "updated_at")
    print_table(columns, [[row[column] for column in columns] for row in rows])


@outbound.command()
@click.argument("message_id")
@json_option
def show(message_id: str, as_json: bool) -> None:
    """One delivery, with phone numbers and addresses masked."""
    row = run(with_pool(load_settings(), lambda pool: DeliveryViews(pool).show(message_id)))
    if row is None:
        raise Failed(f"there is no delivery {message_id!r}")
    if as_json:
        print_json(row)
    else:
        print_fields(row)


@outbound.command()
@click.argument("message_id")
@by_option
@json_option
def retry(message_id: str, actor: str, as_json: bool) -> None:
    """Send a reply again that failed or is unknown.

    Look first: one that is unknown may have reached the customer, who then gets it twice. It goes
    behind what waits of its lead. Asked for twice before it is sent, it is done once.
    """
    again, offset = run(_retry(load_settings(), message_id, actor))
    told: dict[str, Any] = {"message_id": again.message_id, "status": "pending", "offset": offset}
    if as_json:
        print_json(told)
    else:
        click.echo(f"{again.message_id}: with the worker again, at offset {offset}")


async def _retry(settings: Settings, message_id: str, actor: str) -> tuple[Again, int]:
    producer = Producer(settings)
    try:
        try:
            await producer.start()
        except (KafkaError, OSError) as error:
            raise Failed(
                f"the broker {settings.kafka_bootstrap_servers} cannot be reached, nothing was "
                f"changed: {error or type(error).__name__}"
            ) from None
        try:
            again = await with_pool(
                settings, lambda pool: DeliveryRetries(pool).mark(message_id, actor)
            )
        except Refused as error:
            raise Failed(str(error)) from None
        try:
            async with asyncio.timeout(CONFIRMED_WITHIN):
                future = await producer.send(settings.outbound_topic, again.key, again.value, ())
                sent = await asyncio.shield(future)
        except (KafkaError, TimeoutError) as error:
            raise Failed(
                f"{message_id} is pending, but the broker did not confirm its record "
                f"({type(error).__name__}): ask for the same again, which is harmless"
            ) from None
        return again, getattr(sent, "offset", -1)
    finally:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_WITHIN):
                await producer.stop()
