"""Runs of the worker from plain sources: lives one after the other, and what they leave behind."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import asyncpg
from aiohttp import web

from tests.crash.child import DONE_WITHIN, Life, live, settings_of
from tests.crash.ledger import HOST, Ledger
from tests.crash.plain import Topics
from tests.crash.plan import BUSINESS, lead_of, script

# Forked from a process that has imported everything: a life begins in milliseconds.
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["tests.crash.child", "streamapp.app"])


@dataclass
class Run:
    """One run with a directory, a ledger and ids of its own."""

    life: Life
    ledger: Ledger
    exit_codes: list[int] = field(default_factory=list)
    counts: list[dict[str, float]] = field(default_factory=list)

    @property
    def topics(self) -> Topics:
        return Topics(Path(self.life.directory))

    @property
    def killed(self) -> bool:
        return -signal.SIGKILL in self.exit_codes

    async def live(self, point: str | None = None, number: int = 1, *, record: bool = False) -> int:
        """One life, to its end; gives the exit code."""
        life = replace(self.life, point=point, number=number, record=record)
        process = _processes.Process(target=live, args=(life,))
        process.start()
        await asyncio.to_thread(process.join, DONE_WITHIN + 30)
        code = process.exitcode
        if code is None:
            process.kill()
            raise AssertionError(f"{life} does not end:\n{self.log()}")
        assert code in (0, -signal.SIGKILL), f"{life}: exit code {code}\n{self.log()}"
        self.exit_codes.append(code)
        return code

    def log(self) -> str:
        return Path(self.life.directory, "log").read_text()[-6000:]

    def counted(self) -> dict[str, float]:
        """Deliveries of the life that ended by itself."""
        found: dict[str, float] = json.loads(Path(self.life.directory, "counts.json").read_text())
        return found

    def recorded(self) -> list[tuple[str, str, str]]:
        text = Path(self.life.directory, "recorded.json").read_text()
        return [tuple(entry) for entry in json.loads(text)]

    async def end(self) -> dict[str, Any]:
        """All that is there in the end, without ids and times that differ from run to run."""
        connection = await asyncpg.connect(self.life.dsn)
        try:
            return await self._end(connection)
        finally:
            await connection.close()

    async def _end(self, connection: Any) -> dict[str, Any]:
        name, settings = self.life.name, settings_of(self.life)
        own = len(name) + 1

        async def rows(sql: str, *arguments: Any) -> list[tuple[Any, ...]]:
            return sorted(tuple(row) for row in await connection.fetch(sql, *arguments))

        sagas = "select processing_id from sagas where consumer_group = $1"
        outbound = {
            (json.loads(value)["in_reply_to"][own:], json.loads(value)["message_id"], value)
            for _, value, _ in self.topics.read(settings.outbound_topic)
            if value is not None
        }
        return {
            "sagas": await rows(
                "select substr(processing_id, $2), run, status, reason from sagas "
                "where consumer_group = $1",
                name,
                own + 1,
            ),
            "steps": await rows(
                # A step that was refused is undone all the same where a death left it in doubt.
                "select substr(processing_id, $2), run, ordinal, direction, action, sub_step, "
                f"status from saga_steps t where processing_id in ({sagas}) and not "
                "(direction = 'compensate' and exists (select from saga_steps f where "
                "(f.processing_id, f.run, f.ordinal) = (t.processing_id, t.run, t.ordinal) "
                "and f.direction = 'forward' and f.status = 'FAILED'))",
                name,
                own + 1,
            ),
            "tasks": await rows(
                "select substr(processing_id, $2), run, task_type, status, priority from tasks "
                f"where processing_id in ({sagas})",
                name,
                own + 1,
            ),
            "activities": await rows(
                "select activity_type from lead_activities where lead_id = $1", lead_of(name)
            ),
            "lead": await connection.fetchval(
                "select replace(status, $2, '') from leads where lead_id = $1",
                lead_of(name),
                name,
            ),
            "dead letters": await rows(
                'select "offset", action, run, reason, status, '
                "encode(original_value, 'escape') = any($2) from dead_letter_queue "
                "where topic = $1",
                settings.input_topic,
                [value.decode() for value in script(name)],
            ),
            "outbox": await rows(
                "select substr(topic, $2), published_at is null, failed_at is null from outbox "
                "where consumer_group = $1",
                name,
                own + 1,
            ),
            "processed": await rows(
                "select substr(message_id, $2), processing_status from processed_messages "
                f"where message_id in ({sagas})",
                name,
                own + 1,
            ),
            "replies": sorted(reply for reply, _, _ in outbound),
            "in effect": sorted(self.ledger.active.values()),
            "mails": len(set(self.ledger.mails)),
            "notes": len(set(self.ledger.notes)),
            "committed": self.topics.committed(settings.input_topic),
        }

    def check_ledger(self) -> None:
        """What holds for the world outside, however often the worker died."""
        twice = {key: count for key, count in self.ledger.created.items() if count > 1}
        assert not twice, "an effect came into being twice under one key"
        differing = {at for at, bodies in self.ledger.bodies.items() if len(bodies) > 1}
        assert not differing, "a request was repeated with other bytes"
        ids = Counter(message_id for message_id, _ in set(self.ledger.mails))
        assert set(ids.values()) <= {1}, "one mail has two keys"


@asynccontextmanager
async def run_of(name: str, directory: Path, dsn: str) -> AsyncIterator[Run]:
    """A run whose input topic is written, and whose services listen."""
    await asyncio.to_thread(directory.mkdir, parents=True)
    ledger = Ledger()
    runner = web.AppRunner(ledger.application(), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, HOST, 0).start()
    port = runner.addresses[0][1]
    smtp = await asyncio.get_running_loop().create_server(ledger.smtp, HOST, 0)
    life = Life(
        name=name,
        directory=str(directory),
        dsn=dsn,
        ledger=f"http://{HOST}:{port}",
        smtp=f"smtp://{HOST}:{smtp.sockets[0].getsockname()[1]}",
    )
    topics, lead = Topics(directory), lead_of(name)
    for value in script(name):
        topics.append(settings_of(life).input_topic, lead.encode(), value)
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(
            "insert into leads values ($1, $2, 'tenant-1', 'new')", lead, BUSINESS
        )
    finally:
        await connection.close()
    try:
        yield Run(life, ledger)
    finally:
        smtp.close()
        await runner.cleanup()


def all_points() -> bool:
    """Whether every pass of every point is wanted, and not just a first, a middle and a last."""
    return os.environ.get("STREAMAPP_TEST_CRASH") == "all"
