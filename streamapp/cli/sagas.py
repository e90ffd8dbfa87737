"""``streamapp sagas``: what the journal knows, and trying a stuck one again."""

from __future__ import annotations

import click

from streamapp.cli.running import (
    Failed,
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
from streamapp.saga.model import SagaStatus
from streamapp.settings import Settings
from streamapp.storage.connection import Pool
from streamapp.storage.unfinished import UnfinishedSagas


@click.group()
def sagas() -> None:
    """Sagas: what was done for a message, and where it stands."""


@sagas.command("list")
@click.option("--status", type=click.Choice([status.value for status in SagaStatus]))
@click.option("--lead", "lead_id", help="Of this lead only.")
@limit_option
@json_option
def list_(status: str | None, lead_id: str | None, limit: int, as_json: bool) -> None:
    """Sagas, the most recently changed first."""
    rows = run(query(load_settings(), lambda q: q.sagas(status, lead_id, limit)))
    if as_json:
        print_json(rows)
        return
    columns = ("processing_id", "run", "status", "lead_id", "handler", "reason", "updated_at")
    print_table(columns, [[row[column] for column in columns] for row in rows])


@sagas.command()
@click.argument("processing_id")
@json_option
def show(processing_id: str, as_json: bool) -> None:
    """One saga with its steps; texts are masked unless --json is given."""
    saga = run(query(load_settings(), lambda q: q.saga(processing_id, reveal=as_json)))
    if saga is None:
        raise Failed(f"there is no saga {processing_id!r}")
    if as_json:
        print_json(saga)
        return
    steps = saga.pop("steps")
    print_fields(saga)
    columns = ("run", "ordinal", "direction", "action", "sub_step", "status", "attempts", "error")
    print_table(columns, [[step[column] for column in columns] for step in steps])


@sagas.command()
@click.argument("processing_id")
@json_option
def resume(processing_id: str, as_json: bool) -> None:
    """Ask the worker that owns a STUCK saga to try it again, soon and in its lead's turn."""
    asked = run(_request_resume(load_settings(), processing_id))
    if not asked:
        raise Failed(f"there is no stuck saga {processing_id!r}")
    if as_json:
        print_json({"processing_id": processing_id, "requested": True})
    else:
        click.echo(f"{processing_id}: will be tried again by the worker that owns its partition")


async def _request_resume(settings: Settings, processing_id: str) -> bool:
    async def ask(pool: Pool) -> bool:
        unfinished = UnfinishedSagas(pool, settings.consumer_group, settings.input_topic)
        return await unfinished.request_resume(processing_id)

    return await with_pool(settings, ask)
