"""The runtime's own decisions: what is held, how long a hand-over may take, who is ready."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import faust
import pytest

from streamapp.settings import load
from streamapp.worker import runtime as module
from streamapp.worker.runtime import Runtime
from tests.worker.fakes import DEADLINE, settled

SETTINGS = {"STREAMAPP_DRAIN_TIMEOUT": "7", "STREAMAPP_SHUTDOWN_TIMEOUT": "11"}


class GivingUp:
    """Intake and dead-letter agent: they note what is asked of them, in order."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.fails = 0
        self.accepted: list[object] = []

    async def give_up(self, *budget: float) -> None:
        self.asked.append(budget)

    async def accept(self, event: object) -> None:
        if self.fails:
            self.fails -= 1
            raise RuntimeError("a defect")
        self.accepted.append(event)


@pytest.fixture
def parts() -> GivingUp:
    return GivingUp()


@pytest.fixture
def runtime(parts: GivingUp, monkeypatch: pytest.MonkeyPatch) -> Runtime:
    """A runtime that is connected to nothing and has started."""
    monkeypatch.setattr(module, "DEFECT_PAUSE", 0.0)
    app = faust.App("test", broker="kafka://127.0.0.1:1", store="memory://")
    runtime = Runtime(load(SETTINGS), app)
    runtime.intake = parts  # type: ignore[assignment]
    runtime.dead_letters = parts  # type: ignore[assignment]
    runtime._started.set()
    return runtime


@pytest.mark.parametrize(("stopping", "budget"), [(False, 7.0), (True, 11.0)])
async def test_a_hand_over_has_its_budget(
    runtime: Runtime, parts: GivingUp, stopping: bool, budget: float
) -> None:
    await runtime.hand_over(stopping)
    assert parts.asked == [(budget,), ()]


@pytest.mark.parametrize("stopping", [False, True])
async def test_nothing_is_waited_for_while_the_database_is_away(
    runtime: Runtime, parts: GivingUp, stopping: bool
) -> None:
    """Nothing can finish, and the whole group waits for this hand-over."""
    runtime.database.report(ConnectionResetError())
    await runtime.hand_over(stopping)
    assert parts.asked == [(0.0,), ()]


async def test_who_has_not_started_has_nothing_to_hand_over(
    runtime: Runtime, parts: GivingUp
) -> None:
    runtime._started.clear()
    await runtime.hand_over(True)
    assert parts.asked == []


@pytest.mark.parametrize("agent", ["accept", "accept_dead_letter"])
async def test_an_event_is_held_until_it_is_in(
    runtime: Runtime, parts: GivingUp, agent: str
) -> None:
    """One that is passed over would be lost with the next commit."""
    parts.fails = 3
    await asyncio.wait_for(getattr(runtime, agent)("event"), DEADLINE)
    assert parts.accepted == ["event"]
    where = "worker" if agent == "accept" else "dead_letters"
    counted = runtime.metrics.registry.get_sample_value("streamapp_defects_total", {"where": where})
    assert counted == 3


async def test_an_event_waits_for_the_start(runtime: Runtime, parts: GivingUp) -> None:
    runtime._started.clear()
    waiting = asyncio.create_task(runtime.accept("event"))
    await settled()
    assert parts.accepted == []
    runtime._started.set()
    await asyncio.wait_for(waiting, DEADLINE)
    assert parts.accepted == ["event"]


async def test_ready_means_that_broker_and_database_are_there(runtime: Runtime) -> None:
    app = SimpleNamespace(
        consumer_generation_id=1,
        rebalancing=False,
        tables=SimpleNamespace(recovery=SimpleNamespace(in_recovery=False)),
    )
    runtime.membership._app = app
    assert all(runtime.readiness().values())
    runtime.database.report(ConnectionResetError())
    assert [name for name, holds in runtime.readiness().items() if not holds] == ["database"]
    runtime.broker.report("ai-results-dlq", ConnectionResetError())
    app.rebalancing = True
    app.tables.recovery.in_recovery = True
    runtime._started.clear()
    assert not any(runtime.readiness().values())
