"""``streamapp explain``: what would be done with messages, and why. Nothing is done."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import BinaryIO

import click

from streamapp.cli.explain_text import text_of
from streamapp.cli.explaining import Explainer, Explanation
from streamapp.cli.running import UNREACHABLE, unreachable_database
from streamapp.pipeline.messages import AIError, InvalidPayload
from streamapp.settings import SettingsError, load
from streamapp.storage.known import Knowledge, Known

_CHUNK = 65_536
_LINE_END = 2  # bytes of a Windows line end, which do not count against the payload


class _Unreadable(Exception):
    """The input cannot be read."""


def _lines(stream: BinaryIO, limit: int) -> Iterator[bytes | None]:
    """The lines of a stream without their ends; None for one of more than ``limit`` bytes,
    of which no more than that is ever held."""
    while True:
        try:
            line = stream.readline(limit + _LINE_END)
            whole = line.endswith(b"\n")
            if not whole and len(line) == limit + _LINE_END:
                rest = stream.readline(_CHUNK)
                while rest and not rest.endswith(b"\n"):
                    rest = stream.readline(_CHUNK)
        except OSError as error:
            raise _Unreadable(error.strerror or str(error)) from error
        if not line:
            return
        value = line.removesuffix(b"\n").removesuffix(b"\r")
        yield value if len(value) <= limit else None


def _open(file: str) -> AbstractContextManager[BinaryIO]:
    if file == "-":
        return nullcontext(click.get_binary_stream("stdin"))
    try:
        return Path(file).open("rb")
    except OSError as error:
        raise _Unreadable(error.strerror or str(error)) from error


@click.command()
@click.argument("file", metavar="FILE|-")
@click.option("--json", "as_json", is_flag=True, help="One JSON object for each line.")
@click.option(
    "--online",
    is_flag=True,
    help="Ask the database too: for duplicates, the tenant, and the business's texts.",
)
def explain(file: str, as_json: bool, online: bool) -> None:
    """Tell what would be done with messages, and why.

    FILE holds one message a line, as in the input topic ("-": standard input). Nothing is done,
    and neither broker nor, without --online, database is needed. The text view hides phone numbers
    and e-mail addresses; --json does not.
    """
    try:
        settings = load()
    except SettingsError as error:
        click.echo(str(error), err=True)
        sys.exit(2)
    explainer = Explainer(settings)
    try:
        with (
            _open(file) as stream,
            Knowledge(settings, explainer.defaults) if online else nullcontext() as knowledge,
        ):
            for line, value in enumerate(_lines(stream, settings.max_payload_bytes), start=1):
                found = _explained(explainer, line, value, knowledge)
                click.echo(json.dumps(found.as_json()) if as_json else text_of(found))
    except _Unreadable as error:
        click.echo(f"{file} cannot be read: {error}", err=True)
        sys.exit(1)
    except UNREACHABLE as error:
        click.echo(f"Error: {unreachable_database(error)}", err=True)
        sys.exit(1)


def _explained(
    explainer: Explainer, line: int, value: bytes | None, knowledge: Knowledge | None
) -> Explanation:
    if value is None:
        return explainer.too_long(line)
    if knowledge is None:
        return explainer.explain(line, value)
    read = explainer.read(line, value)
    if isinstance(read, InvalidPayload):
        return explainer.explain_with(line, read, Known())
    if isinstance(read, AIError):
        # Without an id of its own its identity is a place in the topic, which is not known here.
        known = knowledge.of(explainer.identity(line, read), None, None, None)
    else:
        known = knowledge.of(read.processing_id, read.lead_id, read.business_id, read.tenant_id)
    return explainer.explain_with(line, read, known)
