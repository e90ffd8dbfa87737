"""Every way in which an order service can answer badly, and what each answer means."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import cache
from typing import Literal

from tests.faults.services.far import Answer, Behaviour, Connection, http

Verdict = Literal["in doubt", "not now", "busy", "rejected"]

GIGABYTE = 1 << 30
BOMB = 64 << 20  # bytes, unpacked
BLOCK = b"x" * 65536
ORDER = b'{"order_id": "o-1"}'


def says(status: int, body: bytes = b"", *headers: str) -> Behaviour:
    async def answer(connection: Connection, _: Answer) -> None:
        await connection.send(http(status, body, *headers))

    return answer


def raw(*parts: bytes, then: str = "close") -> Behaviour:
    """These bytes, and then hang up, reset or keep silent."""

    async def answer(connection: Connection, _: Answer) -> None:
        for part in parts:
            await connection.send(part)
        if then == "reset":
            connection.reset()
        elif then == "silence":
            await connection.gone()
        raise ConnectionError

    return answer


def drip(head: bytes, each: bytes) -> Behaviour:
    """A byte every tenth of a second, for ever: alive, and never done."""

    async def answer(connection: Connection, _: Answer) -> None:
        await connection.send(head)
        while True:
            await connection.send(each)
            await asyncio.sleep(0.1)

    return answer


def flood(head: bytes, block: bytes, size: int = GIGABYTE) -> Behaviour:
    """As much as the client takes, up to ``size`` bytes."""

    async def answer(connection: Connection, _: Answer) -> None:
        await connection.send(head)
        while connection.sent < size:
            await connection.send(block)

    return answer


@cache
def _bomb() -> bytes:
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    packed = b"".join(packer.compress(bytes(1 << 20)) for _ in range(BOMB >> 20))
    return packed + packer.flush()


async def bomb(connection: Connection, _: Answer) -> None:
    """An answer that is small only while it is packed."""
    await connection.send(http(200, _bomb(), "Content-Encoding: gzip"))


async def late(connection: Connection, answer: Answer) -> None:
    """The effect is there, and the answer comes when the client has given up."""
    await connection.gone()
    await connection.send(http(answer[0], ORDER))


def date(seconds: float) -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


@dataclass(frozen=True, slots=True)
class Case:
    """A bad answer to a creation, its meaning, and whether the order was made nevertheless."""

    behaviour: Behaviour
    verdict: Verdict
    effect: bool = True
    retry_after: float | None = None


OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"

CASES: dict[str, Case] = {
    # No answer
    "hangs for ever": Case(raw(then="silence"), "in doubt"),
    "hangs, without effect": Case(raw(then="silence"), "in doubt", effect=False),
    "answers after the timeout": Case(late, "in doubt"),
    "closes at once": Case(raw(), "in doubt"),
    "resets at once": Case(raw(then="reset"), "in doubt"),
    "closes within the status line": Case(raw(b"HTTP/1.1 2"), "in doubt"),
    "closes within the headers": Case(raw(OK + b"Content-Le"), "in doubt"),
    "resets within the headers": Case(raw(OK + b"Content-Le", then="reset"), "in doubt"),
    "hangs within the headers": Case(raw(OK + b"Content-Le", then="silence"), "in doubt"),
    "closes within the body": Case(raw(http(200, ORDER, "Content-Length: 99")), "in doubt"),
    "resets within the body": Case(
        raw(http(200, ORDER, "Content-Length: 99"), then="reset"), "in doubt"
    ),
    "hangs within the body": Case(
        raw(http(200, ORDER, "Content-Length: 99"), then="silence"), "in doubt"
    ),
    "closes within a chunk": Case(raw(CHUNKED + b"40\r\n" + ORDER), "in doubt"),
    "drips headers": Case(drip(OK + b"X: ", b"x"), "in doubt"),
    "drips a body": Case(drip(CHUNKED, b"1\r\n \r\n"), "in doubt"),
    "drips interim answers": Case(drip(b"", b"HTTP/1.1 102 Processing\r\n\r\n"), "in doubt"),
    # Too much
    "a header without end": Case(flood(OK + b"X: ", BLOCK), "in doubt"),
    "headers without end": Case(flood(OK, b"X-Y: z\r\n" * 8192), "in doubt"),
    "interim answers without end": Case(
        flood(b"", b"HTTP/1.1 102 Processing\r\n\r\n" * 2048), "in doubt"
    ),
    "a body of a gigabyte": Case(
        flood(OK + b"Content-Length: %d\r\n\r\n" % GIGABYTE, BLOCK), "in doubt"
    ),
    "chunks of a gigabyte": Case(flood(CHUNKED, b"10000\r\n" + BLOCK + b"\r\n"), "in doubt"),
    "a refusal of a gigabyte": Case(
        flood(b"HTTP/1.1 422 No\r\nContent-Length: %d\r\n\r\n" % GIGABYTE, BLOCK),
        "rejected",
        effect=False,
    ),
    "a body of 64 MB, packed": Case(bomb, "in doubt"),
    # Garbage
    "no HTTP": Case(raw(b"\x16\x03\x01\x02\x00 no HTTP\r\n\r\n"), "in doubt"),
    "no JSON": Case(says(200, b"<html>Welcome</html>"), "in doubt"),
    "truncated JSON": Case(says(200, b'{"order_id": "o-'), "in doubt"),
    "a list": Case(says(200, b'["o-1"]'), "in doubt"),
    "broken gzip": Case(
        says(200, gzip.compress(ORDER)[:-14], "Content-Encoding: gzip"), "in doubt"
    ),
    "not packed as told": Case(says(200, ORDER, "Content-Encoding: gzip"), "in doubt"),
    # Success that names no order
    "an empty 200": Case(says(200), "in doubt"),
    "an empty 204": Case(says(204), "in doubt"),
    "202, to be done later": Case(says(202, b'{"status": "accepted"}'), "in doubt"),
    "200 with an error inside": Case(says(200, b'{"error": "out of stock"}'), "in doubt"),
    "an order id of null": Case(says(200, b'{"order_id": null}'), "in doubt"),
    "an empty order id": Case(says(200, b'{"order_id": ""}'), "in doubt"),
    "an order id of a wrong type": Case(says(200, b'{"order_id": ["o-1"]}'), "in doubt"),
    "true as an order id": Case(says(200, b'{"order_id": true}'), "in doubt"),
    # Statuses
    "408": Case(says(408), "in doubt"),
    "425": Case(says(425), "not now", effect=False),
    "429": Case(says(429), "not now", effect=False),
    "429, in 3 seconds": Case(says(429, b"", "Retry-After: 3"), "not now", False, 3.0),
    "429, at a date": Case(says(429, b"", f"Retry-After: {date(1e6)}"), "not now", False, 86400.0),
    "429, at a date gone by": Case(
        says(429, b"", f"Retry-After: {date(-50)}"), "not now", False, 0
    ),
    "429, in a million years": Case(
        says(429, b"", "Retry-After: " + "9" * 15), "not now", False, 86400.0
    ),
    "429, in minus one second": Case(says(429, b"", "Retry-After: -1"), "not now", False),
    "429, in no time": Case(says(429, b"", "Retry-After: soon"), "not now", False),
    "503, in 3 seconds": Case(says(503, b"", "Retry-After: 3"), "in doubt", retry_after=3.0),
    "500 after the effect": Case(says(500, ORDER), "in doubt"),
    "502": Case(says(502), "in doubt", effect=False),
    "504": Case(says(504), "in doubt"),
    "599": Case(says(599), "in doubt"),
    "409": Case(says(409), "busy", effect=False),
    "409, and it is made meanwhile": Case(says(409), "busy"),
    "400": Case(says(400), "rejected", effect=False),
    "404": Case(says(404), "rejected", effect=False),
    "422": Case(says(422, b'{"error": "not sold"}'), "rejected", effect=False),
    "101": Case(says(101, b"", "Upgrade: x", "Connection: upgrade"), "in doubt"),
}
