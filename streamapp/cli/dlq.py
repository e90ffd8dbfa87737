"""``streamapp dlq``: what lies in the dead-letter queue."""

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
)
from streamapp.pipeline.outcomes import Reason


@click.group()
def dlq() -> None:
    """Look at dead letters."""


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
@json_option
def stats(as_json: bool) -> None:
    """Counts by status and reason."""
    found = run(query(load_settings(), lambda q: q.dead_letter_stats()))
    if as_json:
        print_json(found)
    else:
        print_fields(found)
