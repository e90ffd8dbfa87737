"""The auditor of the chaos run finds what a worker does wrong, and nothing in a sound one.

Each worker here is a real one on Apache Kafka and PostgreSQL, one of its promises broken by
``tests.chaos.defects``. All of them meet the same: an order service that does what it is asked
and answers garbage, a kill while leads wait for it, and a return.
"""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.chaos.checks import summary
from tests.chaos.defects import DEFECTS
from tests.chaos.evidence import Violation
from tests.chaos.services import Mood, OrderService
from tests.kafka.broker import Broker
from tests.kafka.conftest import NewStage
from tests.kafka.stage import PROGRESS_WITHIN, Stage
from tests.support.worker import WorkerProcess

pytestmark = pytest.mark.timeout(300)

PARKED = 60  # records that wait behind unfinished ones when the worker is killed
GIVEN_UP = "select count(*) from sagas where reason in ('retries_exhausted', 'circuit_open')"
# Shorter than the defaults, so that a step soon comes to its end.
SHORT = {
    "STREAMAPP_CIRCUIT_OPEN_SECONDS": "2",
    "STREAMAPP_CIRCUIT_MAX_WAIT": "8",
    "STREAMAPP_CIRCUIT_MAX_WAIT_BEST_EFFORT": "4",
}


async def killed_in_trouble(stage: Stage, orders: OrderService) -> list[Violation]:
    """Carry the scene out; gives what the auditor finds."""
    (worker,) = await stage.prepare()
    async with stage.load():
        await stage.progress()
        orders.temper.upset(Mood.GARBLES, 1.0)
        await until_crowded(worker)
        worker.kill()
        worker.start()
        await stage.until_more(GIVEN_UP, 0)
        orders.temper.calm()
        await stage.progress()
    _, violations = await stage.audit()
    return violations


async def until_crowded(worker: WorkerProcess) -> None:
    """Wait until many records wait behind unfinished ones."""
    deadline = time.monotonic() + PROGRESS_WITHIN
    while (await worker.json("/api/stats"))["worker"]["parked"] <= PARKED:
        assert time.monotonic() < deadline, worker.log.read_text()[-4000:]
        await asyncio.sleep(0.1)


async def test_a_sound_worker_does_nothing_wrong(
    broker: Broker, new_stage: NewStage, orders: tuple[OrderService, str]
) -> None:
    stage = new_stage(broker.bootstrap, **SHORT)
    violations = await killed_in_trouble(stage, orders[0])
    assert summary(violations) == "0 lost, 0 doubled, 0 out of order", violations[:5]


@pytest.mark.parametrize(
    ("defect", "kind", "what"),
    [
        ("acknowledges-early", "lost", "has no saga"),
        ("skips-compensation", "wrong", "its order still stands"),
        ("asks-under-a-new-key", "doubled", "was created"),
    ],
)
async def test_a_defective_worker_is_found_out(
    broker: Broker,
    new_stage: NewStage,
    orders: tuple[OrderService, str],
    defect: str,
    kind: str,
    what: str,
) -> None:
    assert defect in DEFECTS
    stage = new_stage(broker.bootstrap, **SHORT)
    stage.program = ("-m", "tests.chaos.defective", defect)
    violations = await killed_in_trouble(stage, orders[0])
    found = [each for each in violations if each.kind == kind and what in each.text]
    assert found, violations[:20]
    assert all(each.ids for each in found), "a violation names its messages"
