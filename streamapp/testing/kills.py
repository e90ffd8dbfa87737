"""Processes that die: one life of a saga, ended by SIGKILL at a crash point."""

from __future__ import annotations

import asyncio
import multiprocessing
import signal
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

from streamapp.resilience import crash_points
from streamapp.saga.model import Message

if TYPE_CHECKING:
    from streamapp.testing.kit import Kit

ENDS_WITHIN = 60.0  # seconds; reached only by a life that is stuck

# Forked from a process that has imported everything: a life begins in milliseconds.
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["streamapp.testing"])


@dataclass(frozen=True, slots=True)
class Kill:
    """A crash point (``streamapp.resilience.crash_points.POINTS``), and its how manieth pass."""

    point: str
    number: int


@dataclass(frozen=True)
class _Life:
    kit: Kit
    dsn: str
    about: Message
    actions: Sequence[str] | None


async def kills_of(kit: Kit, dsn: str, about: Message, actions: Sequence[str] | None) -> list[Kill]:
    """Run a message to its end in a process of its own; gives the points that it passed."""
    receiver, sender = _processes.Pipe(duplex=False)
    code = await _live(_Life(kit, dsn, about, actions), None, sender)
    assert code == 0, f"the undisturbed run ended with exit code {code}"
    passes: Counter[str] = Counter()
    kills = []
    for point in receiver.recv():
        passes[point] += 1
        kills.append(Kill(point, passes[point]))
    assert kills, "no point was passed"
    return kills


async def live_and_die(
    kit: Kit, dsn: str, about: Message, actions: Sequence[str] | None, kill: Kill
) -> None:
    """Run a message until it is killed. Fails where it does not come to that point."""
    code = await _live(_Life(kit, dsn, about, actions), kill, None)
    assert code == -signal.SIGKILL, (
        f"{kill.point} was not passed for the {kill.number}. time: exit code {code}"
    )


async def _live(life: _Life, kill: Kill | None, report: Connection | None) -> int:
    process = _processes.Process(target=_main, args=(life, kill, report))
    process.start()
    await asyncio.to_thread(process.join, ENDS_WITHIN)
    if process.exitcode is None:
        process.kill()
        raise AssertionError(f"the run of {life.about.processing_id} does not end")
    return process.exitcode


def _main(life: _Life, kill: Kill | None, report: Connection | None) -> None:
    passed: list[str] = []
    if kill is not None:
        crash_points.kill_at(kill.point, kill.number)
    else:
        crash_points.arm(passed.append)
    asyncio.run(life.kit.run(life.dsn, life.about, life.actions))
    if report is not None:
        report.send(passed)
