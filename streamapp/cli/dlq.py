"""``streamapp dlq``: what lies in the dead-letter queue, and sending it again."""

from __future__ import annotations

import asyncio
import contextlib
from typing import IO

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
    query,
    run,
    with_pool,
)
from streamapp.pipeline.outcomes import Reason
from streamapp.settings import Settings
from streamapp.storage.connection import Pool
from streamapp.storage.operations import Refused
from streamapp.storage.redrives import Redrives
from streamapp.worker.producer import Producer
from streamapp.worker.redrive import NotConfirmed, Redriver, Sent

STOP_WITHIN = 2.0  # seconds; a broker that went away meanwhile is not waited for


@click.group()
def dlq() -> None:
    """Look at dead letters, and send them again."""


@dlq.command("list")
@click.option("--status", type=click.Choice(["failed", "retrying", "resolved"]))
@click.option("--reason", type=click.Choice([reason.value for reason in Reason]))
@limit_option
@json_option
def list_(status: str | None, reason: str | None, limit: int, as_json: bool) -> None:
    """Dead letters, newest first, with phone numbers and addresses masked."""
    rows = run(query(load_settings(), lambda q: q.dead_letters(status, reason, limit)))
    if as_json:
        print_json(rows)
        return
    columns = ("dead_letter_id", "message_id", "action", "reason", "status", "created_at")
    print_table(columns, [[row[column] for column in columns] for row in rows])


@dlq.command()
@click.argument("name", metavar="ID")
@json_option
def show(name: str, as_json: bool) -> None:
    """One dead letter, by its own id or its message's.

    With --json the original record comes along, whole and unmasked.
    """
    row = run(query(load_settings(), lambda q: q.dead_letter(name, reveal=as_json)))
    if row is None:
        raise Failed(f"there is no dead letter {name!r}")
    if as_json:
        print_json(row)
    else:
        print_fields(row)


@dlq.command()
@click.argument("name", metavar="ID")
@click.option(
    "--value",
    type=click.File("rb"),
    help="Send the content of this file (- for standard input) in place of the letter's value.",
)
@by_option
@json_option
def retry(name: str, value: IO[bytes] | None, actor: str, as_json: bool) -> None:
    """Send one dead letter again, by its own id or its message's.

    It goes to its own partition, as it was. What becomes of it shows in its status: resolved once
    the message, or the action, is done; failed with the newest error otherwise. Asked for twice,
    it is done once.
    """
    edited = value.read() if value is not None else None
    sent = run(_retry(load_settings(), name, actor, edited))
    redriven = sent.redriven
    if as_json:
        print_json(sent.to_json())
        return
    what = f"action {redriven.redrive.action} of it" if redriven.redrive.action else "it"
    click.echo(
        f"{redriven.dead_letter_id}: sent again to {redriven.topic}:{redriven.partition} at offset "
        f"{sent.offset}; the worker runs {what} again"
    )


async def _retry(settings: Settings, name: str, actor: str, value: bytes | None) -> Sent:
    producer = Producer(settings)
    try:
        try:
            await producer.start()
        except (KafkaError, OSError) as error:
            raise Failed(
                f"the broker {settings.kafka_bootstrap_servers} cannot be reached, nothing was "
                f"changed: {error or type(error).__name__}"
            ) from None

        async def work(pool: Pool) -> Sent:
            redrives = Redrives(
                pool,
                input_topic=settings.input_topic,
                max_payload_bytes=settings.max_payload_bytes,
            )
            return await Redriver(redrives, producer).retry(name, actor, value)

        try:
            return await with_pool(settings, work)
        except (Refused, NotConfirmed) as error:
            raise Failed(str(error)) from None
    finally:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_WITHIN):
                await producer.stop()


@dlq.command()
@json_option
def stats(as_json: bool) -> None:
    """Counts by status and reason."""
    found = run(query(load_settings(), lambda q: q.dead_letter_stats()))
    if as_json:
        print_json(found)
    else:
        print_fields(found)
