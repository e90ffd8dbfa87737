"""``streamapp migrate``: the database's schema, and the topics that are missing."""

from __future__ import annotations

from typing import Any

import click

from streamapp.cli.running import (
    Failed,
    json_option,
    load_settings,
    print_json,
    run,
    unreachable_database,
)
from streamapp.settings import Settings
from streamapp.storage.faults import DATABASE_ERRORS
from streamapp.storage.migrations import MigrationError, upgrade
from streamapp.worker.topics import (
    BROKER_ERRORS,
    TopicError,
    TopicReport,
    ensure_topics,
    topic_admin,
)

_DATABASE: tuple[type[BaseException], ...] = (*DATABASE_ERRORS, ValueError)


@click.command()
@click.option("--no-topics", is_flag=True, help="Leave Kafka alone.")
@json_option
def migrate(no_topics: bool, as_json: bool) -> None:
    """Bring the database up to date and create the topics that are missing.

    Safe to run again, and by several at once. Settings of existing topics are not changed;
    those that are wrong are named.
    """
    settings = load_settings()
    applied, topics = run(_migrate(settings, no_topics))
    if as_json:
        print_json({"applied": applied, "topics": [_as_json(topic) for topic in topics]})
        return
    click.echo(f"database: {', '.join(applied) if applied else 'up to date'}")
    for topic in topics:
        state = "created" if topic.created else "exists"
        click.echo(f"topic {topic.name}: {state}, {topic.partitions} partitions")
        for problem in topic.problems:
            click.echo(f"  warning: {problem}", err=True)


async def _migrate(settings: Settings, no_topics: bool) -> tuple[list[str], list[TopicReport]]:
    try:
        applied = await upgrade(settings.database_url.get_secret_value())
    except MigrationError as error:
        raise Failed(str(error)) from None
    except _DATABASE as error:
        raise Failed(unreachable_database(error)) from None
    if no_topics:
        return applied, []
    try:
        async with topic_admin(settings) as admin:
            return applied, await ensure_topics(settings, admin)
    except TopicError as error:
        raise Failed(str(error)) from None
    except BROKER_ERRORS as error:
        raise Failed(
            f"{settings.kafka_bootstrap_servers} cannot be reached: {error or type(error).__name__}"
        ) from None


def _as_json(report: TopicReport) -> dict[str, Any]:
    return {
        "name": report.name,
        "partitions": report.partitions,
        "created": report.created,
        "problems": list(report.problems),
    }
