"""A mail server that answers badly: the mail is in doubt or not, and the saga completes anyway."""

from __future__ import annotations

import asyncio
import re
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import count

import pytest
from pydantic import SecretStr

from streamapp.actions.base import Capabilities
from streamapp.actions.clients import Clients
from streamapp.actions.defaults import default_actions
from streamapp.pipeline.outcomes import Reason
from streamapp.services.email import Mailer
from streamapp.services.errors import Rejected, Retryable, ServiceError
from streamapp.testing.standins import Place
from tests.actions import building
from tests.support.bench import Bench, running_bench
from tests.support.sagas import saga
from tests.support.waiting import until

TIMEOUT = 1.5  # seconds of one delivery
DEADLINE = 30.0
AFFORDABLE = 16 << 20  # bytes

Reply = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def says(text: bytes) -> Reply:
    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(text)
        await writer.drain()

    return reply


def endless(block: bytes, pause: float = 0.0) -> Reply:
    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(block)
            await writer.drain()
            await asyncio.sleep(pause)

    return reply


async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await reader.read(65536):
        pass
    raise ConnectionError


async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    raise ConnectionError


@dataclass
class MailServer:
    """Speaks SMTP, and answers the command ``where`` by ``badly``: the next ``bad`` times, or
    always. ``mails`` has each text that arrived whole, whatever was said to it."""

    where: str
    badly: Reply
    bad: int | None = None
    mails: list[bytes] = field(default_factory=list)
    over: asyncio.Event = field(default_factory=asyncio.Event)
    open: int = 0

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        talking = asyncio.ensure_future(self._talk(reader, writer))
        over = asyncio.ensure_future(self.over.wait())
        await asyncio.wait({talking, over}, return_when=asyncio.FIRST_COMPLETED)
        for task in (talking, over):
            task.cancel()
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await talking
        self.open -= 1
        writer.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._reply("greeting", b"220 hello\r\n", reader, writer)
        usual = {"DATA": b"354 go\r\n", "QUIT": b"221 bye\r\n"}
        while True:
            command = (await reader.readuntil(b"\r\n")).decode().split()[0]
            await self._reply(command, usual.get(command, b"250 ok\r\n"), reader, writer)
            if command == "DATA":
                self.mails.append(await reader.readuntil(b"\r\n.\r\n"))
                await self._reply("text", b"250 taken\r\n", reader, writer)

    async def _reply(
        self,
        to: str,
        well: bytes,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        if to == self.where and (self.bad is None or self.bad > 0):
            if self.bad is not None:
                self.bad -= 1
            await self.badly(reader, writer)
        else:
            await says(well)(reader, writer)

    @property
    def identities(self) -> set[tuple[bytes, bytes]]:
        """Message-ID and key of all mails."""
        return {
            (_header(mail, b"Message-ID"), _header(mail, b"X-Idempotency-Key"))
            for mail in self.mails
        }


def _header(mail: bytes, name: bytes) -> bytes:
    found = re.search(rb"^" + name + rb": (.*?)\r\n", mail, re.MULTILINE)
    assert found is not None
    return found[1]


@asynccontextmanager
async def serving(server: MailServer) -> AsyncIterator[Mailer]:
    listening = await asyncio.start_server(server.talk, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    mailer = Mailer(SecretStr(f"smtp://127.0.0.1:{port}"), "app@example.org", TIMEOUT)
    try:
        yield mailer
    finally:
        await mailer.close()
        server.over.set()
        listening.close()


@dataclass(frozen=True, slots=True)
class Case:
    where: str
    badly: Reply
    verdict: str
    arrived: bool = False


CASES = {
    "no greeting": Case("greeting", silence, "not now"),
    "a greeting without end": Case("greeting", endless(b"220-hello\r\n" * 1000), "not now"),
    "a line without end": Case("greeting", endless(b"2" * 65536), "not now"),
    "a greeting of letters": Case("greeting", endless(b"x", 0.1), "not now"),
    "a web server": Case("greeting", says(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "not now"),
    "abilities without end": Case("EHLO", endless(b"250-X\r\n" * 1000), "not now"),
    "hangs at the sender": Case("MAIL", silence, "not now"),
    "hangs up at the receiver": Case("RCPT", hang_up, "not now"),
    "refuses the receiver": Case("RCPT", says(b"550 nobody\r\n"), "rejected"),
    "wants to be asked later": Case("RCPT", says(b"451 greylisted\r\n"), "not now"),
    "takes it and hangs": Case("text", silence, "in doubt", arrived=True),
    "takes it and hangs up": Case("text", hang_up, "in doubt", arrived=True),
    "takes it and mumbles": Case("text", says(b"yes, thank you\r\n"), "in doubt", arrived=True),
    "takes it and drips": Case("text", endless(b"2", 0.1), "in doubt", arrived=True),
    "takes it and talks on": Case("text", endless(b"250-ok\r\n" * 1000), "in doubt", arrived=True),
    "refuses the text": Case("text", says(b"554 spam\r\n"), "rejected", arrived=True),
    "has no room": Case("text", says(b"452 full\r\n"), "not now", arrived=True),
}


def verdict(error: ServiceError) -> str:
    if isinstance(error, Retryable):
        return "in doubt" if error.in_doubt else "not now"
    assert isinstance(error, Rejected)
    return "rejected"


@pytest.mark.parametrize("name", CASES)
async def test_a_bad_answer(name: str) -> None:
    case = CASES[name]
    server = MailServer(case.where, case.badly)
    async with serving(server) as mailer:
        tracemalloc.start()
        with pytest.raises(ServiceError) as caught:
            async with asyncio.timeout(DEADLINE):
                await mailer.send("a@example.org", "Hello", "Body", key="key", message_id="id")
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert verdict(caught.value) == case.verdict
        assert len(server.mails) == case.arrived
        assert peak < AFFORDABLE
        await until(lambda: server.open == 0)


@pytest.fixture
async def bench(database: str) -> AsyncIterator[Bench]:
    async with running_bench(database) as bench:
        yield bench


async def notified(bench: Bench, mailer: Mailer, name: str, offset: int) -> str:
    """Run the saga of a notification with e-mail; gives its status."""
    registry = default_actions(Clients(mailer=mailer))
    state = saga(processing_id=name, lead_id=f"lead of {name}", offset=offset)
    state.message = replace(building.message(), processing_id=name, lead_id=state.message.lead_id)
    state.plan = building.plan(
        registry,
        ["notify_sales"],
        about=state.message,
        capabilities=Capabilities(frozenset({"email"}), {"sales_team": "sales@example.com"}),
    )
    executor = bench.executor(registry=registry, max_wait_best_effort=1.0, delays=(0.0, 0.05, 0.1))
    await replace(bench, place=Place()).deliver(state, executor)
    return state.status.value


@pytest.mark.parametrize("always", [False, True], ids=["once", "always"])
async def test_sagas(bench: Bench, always: bool) -> None:
    """A mail that cannot be sent fails alone; one in doubt is repeated as it is, and known by
    its Message-ID."""
    slots = asyncio.Semaphore(4)

    async def outcome(name: str, offset: int) -> tuple[str, int]:
        case = CASES[name]
        # A refusal stays: one that a slow machine did not hear in time is asked for again.
        bad = None if always or case.verdict == "rejected" else 1
        server = MailServer(case.where, case.badly, bad)
        async with slots, serving(server) as mailer:
            status = await notified(bench, mailer, name, offset)
        assert len(server.identities) <= 1
        return status, bool(server.mails)

    found = dict(zip(CASES, await asyncio.gather(*map(outcome, CASES, count())), strict=True))
    failed = {name for name, case in CASES.items() if always or case.verdict == "rejected"}
    assert found == {
        name: ("COMPLETED", name not in failed or case.arrived) for name, case in CASES.items()
    }
    letters = {letter.processing_id: letter.reason for letter in await bench.letters()}
    assert letters == dict.fromkeys(failed, Reason.ACTION_FAILED)
    assert len(await bench.tasks()) == len(CASES), "the notification's task stands"
