"""Writes down what a worker does that lasts, and the crash points it passes, in order.

What lasts is seen at the libraries: a COMMIT or a statement of its own that changes rows, a record
that is handed to the producer, an HTTP request, a mail, a mark in the table, an offset commit. So
an effect that somebody adds without a crash point beside it shows up by itself.

The order is that of a flow: the lanes and the journal that writes for them are one (``saga``), each
other task is one of its own. Two lasting actions of one flow need a point between them, or there
is a moment at which no test has killed the worker.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import aiohttp
import aiosmtplib
from asyncpg.connection import Connection

from streamapp.resilience import crash_points

_CHANGES = re.compile(r"\s*(with\b.*?\b)?(insert|update|delete)\b", re.IGNORECASE | re.DOTALL)
NameOf = Callable[..., str | None]

_SAGA = ("journal", "journal-apart", "acquire", "Task-", "tenants")


@dataclass(frozen=True, slots=True)
class Entry:
    """Something that lasts (``action``), or a crash point (``point``)."""

    flow: str
    kind: str
    name: str


def flow_of(task: asyncio.Task[Any] | None) -> str:
    """The flow that a task belongs to."""
    if task is None:
        return "start"
    name = task.get_name()
    return "saga" if name.startswith(_SAGA) else f"{name} {id(task)}"


class Recorder:
    """The entries of one process; ``install`` before anything is connected."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def install(self) -> None:
        """Listen to crash points and libraries, for the rest of the process."""
        crash_points.arm(lambda point: self._note("point", point))
        for method in ("execute", "fetch", "fetchval", "fetchrow", "executemany"):
            self._listen(Connection, method, _change)
        # A request that failed may have had its effect all the same.
        self._listen(aiohttp.ClientSession, "_request", _request, failed_too=True)
        self._listen(aiosmtplib.SMTP, "data", lambda *_: "mail", failed_too=True)

    def _listen(
        self, owner: Any, method: str, name_of: NameOf, *, failed_too: bool = False
    ) -> None:
        """Note a method's calls once they have returned; ``name_of`` sees them before."""
        original = getattr(owner, method)

        async def listened(*arguments: Any, **named: Any) -> Any:
            name = name_of(*arguments)
            done = failed_too
            try:
                result = await original(*arguments, **named)
                done = True
                return result
            finally:
                if done and name is not None:
                    self.action(name)

        setattr(owner, method, listened)

    def action(self, name: str) -> None:
        """Something lasts from here on."""
        self._note("action", name)

    def _note(self, kind: str, name: str) -> None:
        try:
            task = asyncio.current_task()
        except RuntimeError:
            task = None
        self.entries.append(Entry(flow_of(task), kind, name))


def _change(connection: Any, sql: str, *_: Any) -> str | None:
    """A COMMIT, or a statement outside of a transaction that changes rows."""
    if sql.lstrip().upper().startswith("COMMIT"):
        return "COMMIT"
    if not connection.is_in_transaction() and _CHANGES.match(sql):
        return " ".join(sql.split())[:60]
    return None


def _request(_: Any, method: str, url: object) -> str:
    return f"{method} {url}"


def unseparated(entries: Iterable[Entry]) -> list[tuple[str, str, str]]:
    """Actions of one flow that follow each other without a point: (flow, first, second)."""
    last: dict[str, str | None] = {}
    found = []
    for entry in entries:
        if entry.kind == "point":
            last[entry.flow] = None
            continue
        if entry.flow.startswith("main"):
            continue  # the test's own
        before = last.get(entry.flow)
        if before is not None:
            found.append((entry.flow, before, entry.name))
        last[entry.flow] = entry.name
    return found
