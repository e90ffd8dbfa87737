"""``streamapp send``: JSON lines into the input topic."""

from __future__ import annotations

import os
from asyncio import Future
from collections import deque
from collections.abc import Iterator
from typing import IO, Any

import click
import orjson
from aiokafka import AIOKafkaProducer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from streamapp.cli.running import Failed, json_option, load_settings, print_json, run
from streamapp.settings import Settings
from streamapp.worker.topics import BROKER_ERRORS

WINDOW = 2000  # records under way
MAX_REQUEST = 16 * 1024 * 1024  # bytes; the broker's own limit decides


class BadLine(Exception):
    """A line that is no result for a lead."""


@click.command()
@click.argument("file", type=click.File("rb"))
@click.option("--raw", is_flag=True, help="Send lines that are no valid results too, as they are.")
@json_option
def send(file: IO[bytes], raw: bool, as_json: bool) -> None:
    """Send JSON lines of FILE (- for standard input) to the input topic, keyed by lead id.

    Stops at the first line that is no JSON object with a lead id, unless --raw is given.
    Sending a file again is harmless: results that were sent before are duplicates.
    """
    settings = load_settings()
    sent = run(_send(settings, file, raw))
    if as_json:
        print_json({"sent": sent, "topic": settings.input_topic})
    else:
        click.echo(f"{sent} records sent to {settings.input_topic}")


async def _send(settings: Settings, file: IO[bytes], raw: bool) -> int:
    producer = AIOKafkaProducer(
        bootstrap_servers=settings.kafka_bootstrap_servers,
        enable_idempotence=True,
        linger_ms=20,
        max_request_size=MAX_REQUEST,
    )
    count = 0
    under_way: deque[Future[Any]] = deque()
    try:
        await producer.start()
        with _Progress(file) as advance:
            for number, line in _lines(file):
                try:
                    key = lead_key(line)
                except BadLine as error:
                    if not raw:
                        raise Failed(
                            f"line {number}: {error}; {count} records before it were sent"
                        ) from None
                    key = None
                if len(under_way) >= WINDOW:
                    await under_way.popleft()
                under_way.append(await producer.send(settings.input_topic, line, key))
                count += 1
                advance(len(line) + 1)
            while under_way:
                await under_way.popleft()
    except BROKER_ERRORS as error:
        raise Failed(
            f"not all was sent to {settings.kafka_bootstrap_servers}: "
            f"{error or type(error).__name__}"
        ) from None
    finally:
        await producer.stop()
        for unanswered in under_way:
            if unanswered.done() and not unanswered.cancelled():
                unanswered.exception()  # told already by the first, so not once more at the end
    return count


def lead_key(line: bytes) -> bytes:
    """The record's key: the lead id, at the top or inside the envelope. Raises ``BadLine``."""
    try:
        document = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise BadLine(f"not JSON: {error}") from None
    if not isinstance(document, dict):
        raise BadLine("not a JSON object")
    payload = document.get("payload")
    lead = (payload if isinstance(payload, dict) else document).get("lead_id")
    if not isinstance(lead, str) or not lead:
        raise BadLine("there is no lead_id")
    return lead.encode()


def _lines(file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Lines with their numbers, counted from 1; blank ones are left out."""
    for number, line in enumerate(file, 1):
        text = line.rstrip(b"\r\n")
        if text.strip():
            yield number, text


class _Progress:
    """A bar on standard error, by bytes where the size is known; nothing without a terminal."""

    def __init__(self, file: IO[bytes]) -> None:
        console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("sending"),
            BarColumn(),
            TaskProgressColumn(show_speed=True),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        try:
            size = os.fstat(file.fileno()).st_size or None
        except OSError:
            size = None
        self._task = self._bar.add_task("sending", total=size)

    def __enter__(self) -> Any:
        self._bar.start()
        return lambda amount: self._bar.advance(self._task, amount)

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
