"""``streamapp rehearse``: what the code at hand would do otherwise than what was done."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterable
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from streamapp.actions.base import Capabilities
from streamapp.actions.capabilities import capabilities
from streamapp.businesses.business import business_from
from streamapp.cli.running import (
    Failed,
    catalogue,
    json_option,
    load_settings,
    planner,
    print_json,
    run,
    shown,
    unreachable_database,
)
from streamapp.pipeline.outcomes import Record
from streamapp.pipeline.rehearsal import Place, Rehearsal, read
from streamapp.settings import Settings
from streamapp.storage.businesses import BusinessStore
from streamapp.storage.connection import create_pool
from streamapp.storage.faults import DATABASE_ERRORS
from streamapp.storage.recorded import RecordedPlans
from streamapp.worker.history import HistoryError, history, newest, spanning
from streamapp.worker.topics import BROKER_ERRORS

LAST = 1000  # messages, where nothing else is asked for
MOST = 1_000_000
BATCH = 500  # records that are looked up together


class _Time(click.ParamType):
    """A point in time as Unix milliseconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            given = datetime.fromisoformat(str(value))
        except ValueError:
            self.fail("must be a time such as 2026-12-01T15:00 (UTC where no zone is given)")
        if given.tzinfo is None:
            given = given.replace(tzinfo=UTC)
        return int(given.timestamp() * 1000)


@click.command()
@click.option(
    "--last", type=click.IntRange(1, MOST), help=f"The newest so many messages  [default: {LAST}]"
)
@click.option("--since", type=_Time(), metavar="TIME", help="Messages from this time on.")
@click.option("--until", type=_Time(), metavar="TIME", help="Messages before this time.")
@click.option(
    "--examples", type=click.IntRange(0, 100), default=3, show_default=True, help="Of each change."
)
@click.option("--fail-on-change", is_flag=True, help="Exit with 1 when something differs.")
@json_option
def rehearse(
    last: int | None,
    since: int | None,
    until: int | None,
    examples: int,
    fail_on_change: bool,
    as_json: bool,
) -> None:
    """Plan messages of the input topic again, and tell what would change.

    Compares with the plans that are recorded in the database, under the settings of this shell:
    they have to be those of the workers. Nothing is done, sent or committed. Examples hide phone
    numbers and e-mail addresses.
    """
    if last is not None and (since is not None or until is not None):
        raise click.UsageError("give either --last, or --since and --until")
    if since is not None and until is not None and since >= until:
        raise click.UsageError("--since must be before --until")
    settings = load_settings()
    rehearsal = Rehearsal(planner(settings, catalogue()), examples=examples)
    number = LAST if last is None and since is None and until is None else last
    run(_rehearse(settings, rehearsal, number, since, until))
    if as_json:
        print_json(_document(rehearsal))
    else:
        _print(settings, rehearsal)
    if fail_on_change and rehearsal.changed:
        sys.exit(1)


async def _rehearse(
    settings: Settings,
    rehearsal: Rehearsal,
    last: int | None,
    since: int | None,
    until: int | None,
) -> None:
    try:
        pool = await create_pool(settings)
    except ValueError as error:
        raise Failed(unreachable_database(error)) from None
    recorded = RecordedPlans(pool, settings.input_topic)
    try:
        async with history(settings) as topic:
            ranges = await (topic.between(since, until) if last is None else topic.last(last))
            with _Progress() as progress:
                records = topic.read(ranges)
                total = sum(each.end - each.start for each in ranges)
                if last is not None:
                    # Read twice, so that what they hold is never in memory all at once.
                    progress("finding the newest", total)
                    kept = await newest(_counted(records, progress), last)
                    records, total = _among(topic.read(spanning(kept)), kept), len(kept)
                progress("planning", total)
                await _plan(settings, rehearsal, recorded, BusinessStore(pool), records, progress)
    except HistoryError as error:
        raise Failed(str(error)) from None
    except BROKER_ERRORS as error:
        reason = str(error) or type(error).__name__
        raise Failed(f"{settings.kafka_bootstrap_servers} cannot be read: {reason}") from None
    finally:
        pool.terminate()


async def _plan(
    settings: Settings,
    rehearsal: Rehearsal,
    recorded: RecordedPlans,
    store: BusinessStore,
    records: AsyncIterator[Record],
    progress: _Progress,
) -> None:
    defaults = capabilities(settings)
    batch: list[Record] = []

    async def compare() -> None:
        by_place = {
            (record.partition, record.offset): read(
                record, max_payload_bytes=settings.max_payload_bytes
            )
            for record in batch
        }
        try:
            found = await recorded.find(by_place)
            ids = {each.business_id for each in by_place.values()} - {None}
            businesses = await _businesses(store, ids, defaults)
        except DATABASE_ERRORS as error:
            raise Failed(unreachable_database(error)) from None
        for place, each in by_place.items():
            own = businesses.get(each.business_id or "", defaults)
            rehearsal.add(each, found.get(place), own)
        progress.advance(len(batch))
        batch.clear()

    async for record in records:
        batch.append(record)
        if len(batch) == BATCH:
            await compare()
    await compare()


async def _businesses(
    store: BusinessStore, ids: Iterable[str | None], defaults: Capabilities
) -> dict[str, Capabilities]:
    """Those of the businesses that have settings of their own, as they stand."""
    return {
        stored.business_id: business_from(stored.document, defaults).capabilities
        for stored in await store.get_all([name for name in ids if name is not None])
    }


async def _counted(records: AsyncIterator[Record], progress: _Progress) -> AsyncIterator[Record]:
    async for record in records:
        progress.advance(1)
        yield record


async def _among(records: AsyncIterator[Record], places: set[Place]) -> AsyncIterator[Record]:
    async for record in records:
        if (record.partition, record.offset) in places:
            yield record


def _document(rehearsal: Rehearsal) -> dict[str, Any]:
    return {
        "read": rehearsal.read,
        "compared": rehearsal.compared,
        "changed": rehearsal.changed,
        "not_compared": {reason.name.lower(): n for reason, n in rehearsal.apart.items()},
        "changes": [
            {**asdict(group), "kind": group.kind.name.lower()} for group in rehearsal.groups
        ],
    }


def _print(settings: Settings, rehearsal: Rehearsal) -> None:
    click.echo(
        f"{rehearsal.read} messages of {settings.input_topic}: {rehearsal.compared} compared, "
        f"{rehearsal.changed} would change"
    )
    for reason, number in rehearsal.apart.most_common():
        click.echo(f"  {number} not compared: {reason.value}")
    kind = None
    for group in rehearsal.groups:
        if group.kind is not kind:
            kind = group.kind
            click.echo(f"\n{kind.value}")
        click.echo(f"  {shown(group.subject)}: {group.count}")
        for example in group.examples:
            click.echo(f"    {shown(example['message'])}")
            click.echo(f"      - {shown(example['before'])}")
            click.echo(f"      + {shown(example['after'])}")


class _Progress:
    """A bar on standard error; nothing without a terminal."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._task = self._bar.add_task("", total=None)

    def __enter__(self) -> _Progress:
        self._bar.start()
        return self

    def __call__(self, what: str, total: int) -> None:
        """Begin anew with something else."""
        self._bar.reset(self._task, total=total, description=what)

    def advance(self, number: int) -> None:
        self._bar.advance(self._task, number)

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
