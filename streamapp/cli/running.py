"""What our commands have in common: settings, exit codes, output."""

from __future__ import annotations

import asyncio
import getpass
import logging
import os
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

import click
import orjson

from streamapp.actions.nothing_called import no_calls
from streamapp.extensions import Catalogue, ExtensionError, load_catalogue
from streamapp.intents.base import Thresholds
from streamapp.pipeline.planning import Planner
from streamapp.resilience import crash_points
from streamapp.settings import Settings, SettingsError, load
from streamapp.storage.connection import Pool, create_pool
from streamapp.storage.faults import DATABASE_ERRORS
from streamapp.storage.queries import Queries

T = TypeVar("T")

UNREACHABLE: tuple[type[BaseException], ...] = (*DATABASE_ERRORS, ValueError)


class Name(click.ParamType):
    """A text of 1 to 256 characters that can be shown."""

    name = "name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value).strip()
        if not (1 <= len(text) <= 256 and text.isprintable()):
            self.fail("must be 1 to 256 printable characters", param, ctx)
        return text


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
limit_option = click.option(
    "--limit", type=click.IntRange(1, 500), default=50, show_default=True, help="At most so many."
)


def _user() -> str:
    """The person at the shell, as the operating system knows them."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, in a container
        return f"uid {os.getuid()}"


by_option = click.option(
    "--by",
    "actor",
    default=_user,
    show_default="the user of the operating system",
    type=Name(),
    help="Who asks for it, for the audit log.",
)


class Failed(click.ClickException):
    """The thing asked for failed, was not found or could not be reached: exit code 1."""

    exit_code = 1


class WrongSetting(click.ClickException):
    """A setting is wrong: exit code 2, like wrong use."""

    exit_code = 2


def load_settings() -> Settings:
    """The settings of the environment. Raises ``WrongSetting``."""
    try:
        settings = load()
    except SettingsError as error:
        raise WrongSetting(str(error)) from None
    crash_points.arm_for(settings.crash_point)
    return settings


def catalogue() -> Catalogue:
    """All handlers and actions, for commands that plan and carry nothing out. Raises
    ``WrongSetting`` for a package that cannot be used."""
    try:
        return load_catalogue(no_calls())
    except ExtensionError as error:
        raise WrongSetting(str(error)) from None


def planner(settings: Settings, known: Catalogue) -> Planner:
    """What makes the plans that a worker with these settings makes."""
    return Planner(
        known.intents,
        known.actions,
        thresholds=Thresholds(settings.confidence_minimum, settings.confidence_high),
        suggested_actions=settings.suggested_actions,
    )


def run(call: Coroutine[Any, Any, T]) -> T:
    """Run a command's coroutine. Log lines of the Kafka client stay out of its output."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    return asyncio.run(call)


async def query(settings: Settings, ask: Callable[[Queries], Awaitable[T]]) -> T:
    """Ask the database. Raises ``Failed`` when it cannot be reached."""
    return await with_pool(settings, lambda pool: ask(Queries(pool)))


async def with_pool(settings: Settings, work: Callable[[Pool], Awaitable[T]]) -> T:
    """Work with the database. Raises ``Failed`` when it cannot be reached."""
    try:
        pool = await create_pool(settings)
        try:
            return await work(pool)
        finally:
            pool.terminate()
    except UNREACHABLE as error:
        raise Failed(unreachable_database(error)) from None


def unreachable_database(error: BaseException) -> str:
    """Why the database could not be asked. An address that cannot be read is not quoted."""
    reason = "its address cannot be read" if isinstance(error, ValueError) else str(error)
    return f"the database cannot be reached: {reason or type(error).__name__}"


def print_json(value: Any) -> None:
    """One JSON document on one line of standard output."""
    click.echo(orjson.dumps(value))


def shown(value: Any) -> str:
    """A value as text that cannot move a terminal's cursor."""
    text = "" if value is None else str(value)
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def print_table(titles: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Columns, as wide as their values."""
    cells = [list(titles), *([shown(value) for value in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(titles))]
    for row in cells:
        click.echo("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip())


def print_fields(fields: dict[str, Any], *, indent: str = "") -> None:
    """Names and values, one a line; nested objects as indented JSON."""
    width = max((len(name) for name in fields), default=0)
    for name, value in fields.items():
        if isinstance(value, dict | list):
            lines = orjson.dumps(value, option=orjson.OPT_INDENT_2).decode().splitlines()
            click.echo(f"{indent}{name}:")
            for line in lines:
                click.echo(f"{indent}  {shown(line)}")
        elif isinstance(value, str) and "\n" in value:
            click.echo(f"{indent}{name}:")
            for line in value.splitlines():
                click.echo(f"{indent}  {shown(line)}")
        else:
            click.echo(f"{indent}{name.ljust(width)}  {shown(value)}")
