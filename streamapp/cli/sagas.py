"""``streamapp sagas``: what the journal knows, and what is asked for a stuck one."""

from __future__ import annotations

import click

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
from streamapp.saga.model import SagaStatus
from streamapp.settings import Settings
from streamapp.storage.connection import Pool
from streamapp.storage.operations import Refused
from streamapp.storage.requests import Asked, RequestKind, SagaRequests


@click.group()
def sagas() -> None:
    """Sagas: what was done for a message, and where it stands."""


@sagas.command("list")
@click.option("--status", type=click.Choice([status.value for status in SagaStatus]))
@click.option("--lead", "lead_id", help="Of this lead only.")
@click.option(
    "--stuck",
    is_flag=True,
    help="STUCK ones, with the time of their next try; those that wait for a person first.",
)
@limit_option
@json_option
def list_(status: str | None, lead_id: str | None, stuck: bool, limit: int, as_json: bool) -> None:
    """Sagas, the most recently changed first."""
    if stuck and status is not None:
        raise click.UsageError("--stuck and --status exclude each other")
    settings = load_settings()
    if stuck:
        rows = run(query(settings, lambda q: q.stuck_sagas(lead_id, limit)))
    else:
        rows = run(query(settings, lambda q: q.sagas(status, lead_id, limit)))
    if as_json:
        print_json(rows)
        return
    columns: tuple[str, ...]
    columns = ("processing_id", "run", "status", "lead_id", "handler", "reason", "updated_at")
    if stuck:
        columns = ("processing_id", "level", "resume_at", "stuck_retries", "reason", "error")
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
@by_option
@json_option
def resume(processing_id: str, actor: str, as_json: bool) -> None:
    """Ask the worker that owns a STUCK saga to try it again, soon and in its lead's turn.

    What became of it shows in `sagas show`: a saga that is not STUCK any more by then is left
    alone.
    """
    asked = run(_ask(load_settings(), RequestKind.RESUME, processing_id, actor, None))
    _tell(asked, "will be tried again", as_json)


@sagas.command()
@click.argument("processing_id")
@click.option("--reason", required=True, help="Why nothing is left to do for this saga.")
@by_option
@json_option
def resolve(processing_id: str, reason: str, actor: str, as_json: bool) -> None:
    """End a STUCK saga by your word: what it left is dealt with otherwise.

    The worker that owns it marks it RESOLVED, and its dead letter with it. It is not run again.
    """
    asked = run(_ask(load_settings(), RequestKind.RESOLVE, processing_id, actor, reason))
    _tell(asked, "will be resolved", as_json)


def _tell(asked: Asked, what: str, as_json: bool) -> None:
    if as_json:
        print_json(asked.to_json())
        return
    repeated = ", as was asked for already" if asked.repeated else ""
    click.echo(
        f"{asked.processing_id}: {what} by the worker that owns its partition{repeated} "
        f"(request {asked.request_id})"
    )


async def _ask(
    settings: Settings, kind: RequestKind, processing_id: str, actor: str, reason: str | None
) -> Asked:
    async def ask(pool: Pool) -> Asked:
        requests = SagaRequests(pool, settings.consumer_group, settings.input_topic)
        return await requests.ask(kind, processing_id, actor, reason)

    try:
        return await with_pool(settings, ask)
    except Refused as error:
        raise Failed(str(error)) from None
