"""``streamapp business``: what businesses set for themselves, while workers run."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from typing import Any

import click
import orjson

from streamapp.actions.defaults import default_actions
from streamapp.actions.nothing_called import no_calls
from streamapp.actions.topics import APOLOGY, TOPICS, reply_topic
from streamapp.businesses.model import (
    MAX_DOCUMENT,
    BusinessSettings,
    InvalidBusiness,
    document_of,
    parse,
    with_secrets_of,
)
from streamapp.cli.running import (
    Failed,
    Name,
    by_option,
    json_option,
    limit_option,
    load_settings,
    print_fields,
    print_json,
    print_table,
    run,
    shown,
    with_pool,
)
from streamapp.intents.registry import default_registry
from streamapp.storage.businesses import BusinessStore, Stored


@click.group()
def business() -> None:
    """Businesses: their texts, channels, hours, names, services and switches."""


file_argument = click.argument("file", metavar="FILE|-")
id_argument = click.argument("business_id", type=Name())


@business.command("set")
@id_argument
@file_argument
@by_option
@json_option
def set_(business_id: str, file: str, actor: str, as_json: bool) -> None:
    """Replace all settings of a business by those in FILE (JSON or TOML; "-": standard input).

    Running workers take them up within seconds; work under way keeps what it was planned with. A
    value that `get` shows masked is kept as it is stored.
    """
    settings = load_settings()
    document = _read(file, as_json)

    def change(before: Any) -> dict[str, Any]:
        checked = _checked(with_secrets_of(document, before or {}))
        return document_of(checked, reveal=True)

    try:
        stored = run(
            with_pool(settings, lambda pool: BusinessStore(pool).set(business_id, actor, change))
        )
    except InvalidBusiness as error:
        _refuse(error, as_json)
    if as_json:
        print_json(_about(stored))
        return
    click.echo(
        f"{shown(business_id)}: set (revision {stored.revision}); workers take it up within "
        f"{settings.business_refresh:g} s"
    )


@business.command()
@id_argument
@click.option("--reveal", is_flag=True, help="Show secrets.")
@json_option
def get(business_id: str, reveal: bool, as_json: bool) -> None:
    """The settings of a business, as `set` takes them; secrets are masked."""
    stored = run(with_pool(load_settings(), lambda pool: BusinessStore(pool).get(business_id)))
    if stored is None:
        raise Failed(f"the business {shown(business_id)!r} has no settings of its own")
    try:
        document = document_of(parse(stored.document), reveal=reveal)
    except InvalidBusiness as error:
        _refuse(error, as_json)
    if as_json:
        print_json(document)
        return
    print_fields({**_about(stored), "fields": ", ".join(sorted(stored.document))})
    click.echo(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode())


@business.command()
@file_argument
@json_option
def check(file: str, as_json: bool) -> None:
    """Tell whether FILE could be set, and if not, which field is wrong. Nothing is changed.

    Masked secrets are taken for what `set` would keep.
    """
    try:
        _checked(with_secrets_of(_read(file, as_json), _Any()))
    except InvalidBusiness as error:
        _refuse(error, as_json)
    if as_json:
        print_json({"valid": True, "errors": []})
    else:
        click.echo("it can be set")


@business.command("list")
@limit_option
@json_option
def list_(limit: int, as_json: bool) -> None:
    """Businesses that have settings, the most recently changed first."""
    rows = run(with_pool(load_settings(), lambda pool: BusinessStore(pool).list(limit)))
    if as_json:
        print_json([_about(row) for row in rows])
        return
    columns = ("business_id", "revision", "updated_at", "updated_by", "fields")
    print_table(columns, [[_line(row)[column] for column in columns] for row in rows])


def _line(stored: Stored) -> dict[str, Any]:
    about = _about(stored)
    return about | {"fields": ", ".join(about["fields"])}


def _about(stored: Stored) -> dict[str, Any]:
    return {
        "business_id": stored.business_id,
        "revision": stored.revision,
        "updated_at": stored.updated_at.isoformat(),
        "updated_by": stored.updated_by,
        "fields": sorted(stored.document),
    }


def _checked(document: Any) -> BusinessSettings:
    handlers = default_registry()
    topics = {*TOPICS, APOLOGY, *map(reply_topic, handlers.intents)}
    return parse(document, actions=default_actions(no_calls()).names, topics=topics)


def _refuse(error: InvalidBusiness, as_json: bool) -> Any:
    if as_json:
        errors = [{"field": field, "error": text} for field, text in error.problems]
        print_json({"valid": False, "errors": errors})
    else:
        for field, text in error.problems:
            click.echo(f"{shown(field)}: {shown(text)}", err=True)
    sys.exit(1)


def _read(file: str, as_json: bool) -> Any:
    """The document in a file: TOML where the name says so, JSON where that or the content does."""
    try:
        with click.open_file(file, "rb") as stream:
            content = stream.read(MAX_DOCUMENT + 1)
    except OSError as error:
        raise Failed(f"{file} cannot be read: {error.strerror or error}") from None
    try:
        if len(content) > MAX_DOCUMENT:
            raise ValueError(f"has more than {MAX_DOCUMENT} bytes")
        text = content.decode()
        suffix = Path(file).suffix.lower()
        if suffix == ".json" or (suffix != ".toml" and text.lstrip().startswith("{")):
            return orjson.loads(text)
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # also of JSON, TOML and UTF-8
        _refuse(InvalidBusiness([("(file)", f"cannot be understood: {error}")]), as_json)


class _Any(dict[str, Any]):
    """A document that holds an acceptable secret wherever one is looked for."""

    def get(self, key: str, default: Any = None) -> Any:
        return "https://masked.example" if key in ("slack_webhook_url", "token") else _Any()
