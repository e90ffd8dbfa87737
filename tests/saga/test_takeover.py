"""A worker dies at any moment of a run, and the next owner brings the saga to the same end.

The moments are numbered: before and after each write of the journal, before a call reaches its
service, and after its effect while its answer is on the way. A run is cut at one of them, then
another owner takes over; all of them are tried.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

import pytest

from streamapp.saga.model import Fenced, Step
from streamapp.services.errors import Rejected
from tests.support.bench import Bench, Points, PointsJournal
from tests.support.sagas import Call, LostAnswer, Unreachable, external, mail, own, saga, task_id


@dataclass
class Scenario:
    """A plan, what its services do, and what is there in the end."""

    steps: list[Step]
    status: str
    effects: set[str]  # actions whose effect is there in the end
    script: dict[str, Callable[[], list[Any]]] = field(default_factory=dict)
    tasks: dict[str, str] = field(default_factory=dict)
    letters: list[tuple[str, str]] = field(default_factory=list)  # reason, action


SCENARIOS = {
    "forward": Scenario(
        [own("a", lead_status="seen"), external("b"), own("c"), external("d"), own("e", reply=1)],
        "COMPLETED",
        {"b", "d"},
        tasks={"a": "pending", "c": "pending", "e": "pending"},
    ),
    "retries": Scenario(
        [external("b"), own("c")],
        "COMPLETED",
        {"b"},
        script={"b": lambda: [Unreachable(), LostAnswer()]},
        tasks={"c": "pending"},
    ),
    "best effort": Scenario(
        [own("a"), mail("b"), external("d"), mail("f")],
        "COMPLETED",
        {"d", "f"},
        script={"b": lambda: [Rejected("no")] * 9},
        tasks={"a": "pending"},
        letters=[("action_failed", "b")],
    ),
    "backward": Scenario(
        [own("a", lead_status="seen"), external("b"), own("c"), external("d"), external("e")],
        "COMPENSATED",
        set(),
        script={"e": lambda: [Rejected("no")] * 9, "-d": lambda: [Unreachable()]},
        tasks={"a": "cancelled", "c": "cancelled"},
        letters=[("step_rejected", "")],
    ),
    "in doubt, then rejected": Scenario(
        [own("a"), external("b")],
        "COMPENSATED",
        set(),
        script={"b": lambda: [LostAnswer(), *[Rejected("no")] * 9]},
        tasks={"a": "cancelled"},
        letters=[("step_rejected", "")],
    ),
    "stuck": Scenario(
        [own("a"), external("b"), external("c")],
        "STUCK",
        {"b"},
        script={"c": lambda: [Rejected("no")] * 9, "-b": lambda: [Rejected("no")] * 9},
        tasks={"a": "pending"},
        letters=[("compensation_stuck", "")],
    ),
}


async def prepare(bench: Bench, scenario: Scenario) -> None:
    """A fresh script and lead; what earlier sagas left in the service is forgotten."""
    bench.service.script.clear()
    bench.service.calls.clear()
    bench.service.effects.clear()
    for name, outcomes in scenario.script.items():
        bench.service.plan(name.lstrip("-"), *outcomes(), undo=name.startswith("-"))
    await bench.pool.execute(
        "insert into leads values ('lead-1', 'business-1', 'tenant-1', 'new') "
        "on conflict (lead_id, business_id) do update set status = 'new'"
    )


async def passage(bench: Bench, scenario: Scenario, name: str, cut: int = 0) -> Points:
    """A new owner's passage through the saga ``name``: begins it or takes it over."""
    points = Points(cut)

    async def reach(call: Call) -> None:
        await points.reach()

    bench.service.before = bench.service.after = reach
    await bench.take_over()
    journal = PointsJournal(bench.journal, points)
    state = saga(*scenario.steps, processing_id=name, offset=crc32(name.encode()))
    await bench.deliver(state, bench.executor(journal=journal))
    return points


async def check(bench: Bench, scenario: Scenario, name: str) -> None:
    state = await bench.load(name)
    assert state.status == scenario.status
    actions = {call.key: call.action for call in bench.service.calls}
    assert Counter(actions[key] for key in bench.service.effects) == Counter(scenario.effects)
    tasks = {key: to for key, to in (await bench.tasks()).items() if key.startswith(f"{name}/")}
    assert tasks == {task_id(name, action): to for action, to in scenario.tasks.items()}
    letters = [letter for letter in await bench.letters() if letter.processing_id == name]
    assert [(letter.reason, letter.action) for letter in letters] == scenario.letters
    expected = {"COMPLETED": "success", "COMPENSATED": "failed", "STUCK": "failed"}
    assert await bench.processed(name) == expected[scenario.status]
    if "lead_status" in scenario.steps[0].params:
        lead = await bench.pool.fetchval("select status from leads")
        assert lead == ("seen" if scenario.status == "COMPLETED" else "new")
    replies = await bench.pool.fetchval(
        "select count(*) from outbox where record_id = $1", f"reply-{name}"
    )
    assert replies == sum("reply" in step.params for step in scenario.steps)
    check_calls(bench.service.calls)


def check_calls(calls: list[Call]) -> None:
    """One key and one request for each effect; nothing goes forward after the first undoing."""
    for direction in ("forward", "compensate"):
        requests: dict[int, set[tuple[str, bytes]]] = {}
        for call in calls:
            if call.direction == direction:
                requests.setdefault(call.ordinal, set()).add((call.key, call.request))
        assert all(len(found) == 1 for found in requests.values())
    directions = [call.direction for call in calls]
    assert directions == sorted(directions, reverse=True)
    forward = [call.ordinal for call in calls if call.direction == "forward"]
    backward = [call.ordinal for call in calls if call.direction == "compensate"]
    assert forward == sorted(forward)
    assert backward == sorted(backward, reverse=True)


@pytest.mark.parametrize("kind", SCENARIOS)
async def test_every_cut_comes_to_the_same_end(bench: Bench, kind: str) -> None:
    scenario = SCENARIOS[kind]
    await prepare(bench, scenario)
    uncut = await passage(bench, scenario, "uncut")
    await check(bench, scenario, "uncut")
    assert uncut.reached >= 4
    for cut in range(1, uncut.reached + 1):
        name = f"cut at {cut}"
        await prepare(bench, scenario)
        with pytest.raises(asyncio.CancelledError):
            await passage(bench, scenario, name, cut)
        await passage(bench, scenario, name)
        await check(bench, scenario, name)


@pytest.mark.parametrize("kind", ["forward", "backward"])
async def test_two_cuts_come_to_the_same_end(bench: Bench, kind: str) -> None:
    """The second owner dies too, a little after it took over."""
    scenario = SCENARIOS[kind]
    await prepare(bench, scenario)
    uncut = await passage(bench, scenario, "uncut")
    for cut in range(1, uncut.reached + 1, 2):
        for second in (2, 3, 4):
            name = f"cut at {cut} and {second}"
            await prepare(bench, scenario)
            with pytest.raises(asyncio.CancelledError):
                await passage(bench, scenario, name, cut)
            with contextlib.suppress(asyncio.CancelledError):  # it may have ended before
                await passage(bench, scenario, name, second)
            await passage(bench, scenario, name)
            await check(bench, scenario, name)


async def test_a_step_under_way_is_repeated_as_the_same_attempt_in_doubt(bench: Bench) -> None:
    scenario = Scenario([external("b"), own("c")], "COMPLETED", {"b"})
    with pytest.raises(asyncio.CancelledError):
        # The claim with STARTED: 1 and 2; the call: 3 and 4; before its DONE: 5.
        await passage(bench, scenario, "p-1", cut=5)
    row = await bench.step(0)
    assert (row["status"], row["attempts"], row["in_doubt"]) == ("STARTED", 1, False)
    await passage(bench, scenario, "p-1")
    row = await bench.step(0)
    assert (row["status"], row["attempts"], row["in_doubt"]) == ("DONE", 1, True)
    first, second = bench.service.calls
    assert first == second


async def test_a_done_step_is_not_run_again_and_its_output_is_there(bench: Bench) -> None:
    scenario = Scenario([external("b"), external("d"), own("e")], "COMPLETED", {"b", "d"})
    bench.service.plan("b", {"answer": 1}, {"answer": 2})
    with pytest.raises(asyncio.CancelledError):
        await passage(bench, scenario, "p-1", cut=7)  # in the call of d
    await passage(bench, scenario, "p-1")
    assert bench.service.names() == ["b", "d", "d"]
    assert (await bench.load()).steps[0, "forward"].output == {"answer": 1}


async def test_a_frozen_owner_that_wakes_up_is_in_nobodys_way(bench: Bench) -> None:
    """It stands in its call while the next owner finishes the saga; then it may not write."""
    arrived, woken = asyncio.Event(), asyncio.Event()

    async def freeze(call: Call) -> None:
        if not arrived.is_set():
            arrived.set()
            await woken.wait()

    bench.service.before = freeze
    old_epoch = bench.epoch
    frozen = asyncio.create_task(
        bench.executor().run(saga(external("a"), own("b")), old_epoch, bench.place, claim=True)
    )
    await arrived.wait()
    await bench.take_over()
    state = await bench.deliver(saga(external("a"), own("b")))
    assert state.status == "COMPLETED"
    before = await bench.saga()
    woken.set()
    with pytest.raises(Fenced):
        await frozen
    assert await bench.saga() == before
    assert len({call.key for call in bench.service.calls}) == 1
    assert len(bench.service.effects) == 1
