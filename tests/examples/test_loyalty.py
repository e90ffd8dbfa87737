"""The example package: its own tests, and its intent and actions in a running worker."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import Any

import asyncpg

from streamapp.testing import FarSide, far_side
from tests.examples.conftest import EXAMPLE, Stage, beside
from tests.kafka.job import read_all, send, wait_until_done
from tests.support.waiting import until_async
from tests.support.worker import WorkerProcess

WITHIN = 40.0  # seconds; reached only by a test that fails
LEAD = "lead-1"
REDEEM = "POST /redemptions"
ORDER = "POST /orders"
CANCEL = "POST /redemptions/{key}/cancel"


def wish(processing_id: str) -> tuple[bytes, bytes]:
    """A record of somebody who wants a reward, and may have it."""
    value = {
        "processing_id": processing_id,
        "lead_id": LEAD,
        "business_id": "business-1",
        "tenant_id": "tenant-1",
        "intent": {"intent": "REWARD_REQUEST", "confidence": 0.95},
        "entities": {"card_number": "C-7", "points": 1200, "product": "Mug"},
        "original_message": "a present, please",
        "reply_to": "491700000000",
    }
    return LEAD.encode(), json.dumps(value).encode()


async def rows(stage: Stage, sql: str) -> list[Any]:
    connection = await asyncpg.connect(stage.environment["STREAMAPP_DATABASE_URL"])
    try:
        found: list[Any] = await connection.fetch(sql)
        return found
    finally:
        await connection.close()


async def status_of(stage: Stage, processing_id: str) -> str | None:
    for row in await rows(stage, "SELECT processing_id, status FROM sagas"):
        if row["processing_id"] == processing_id:
            return str(row["status"])
    return None


def test_its_own_tests_pass(installed: str) -> None:
    """As its authors run them: it is installed, and so is streamapp."""
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=EXAMPLE,
        env=beside(installed),
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert " passed" in ended.stdout
    assert "skipped" not in ended.stdout


def test_it_is_listed_with_its_package(installed: str) -> None:
    def listed(what: str) -> list[dict[str, Any]]:
        output = subprocess.run(
            [sys.executable, "-m", "streamapp", what, "list", "--json"],
            env=beside(installed),
            capture_output=True,
            check=True,
            timeout=60,
        ).stdout
        found: list[dict[str, Any]] = json.loads(output)
        return found

    (intent,) = (row for row in listed("intents") if row["package"] != "streamapp")
    assert (intent["intent"], intent["package"]) == ("REWARD_REQUEST", "shop-loyalty 1.0")
    foreign = [row for row in listed("actions") if row["package"] != "streamapp"]
    assert {row["action"]: row["intents"] for row in foreign} == {
        "note_reward": ["REWARD_REQUEST"],
        "redeem_points": ["REWARD_REQUEST"],
    }


async def started(worker: WorkerProcess) -> WorkerProcess:
    worker.start()
    await worker.wait_until_ready()
    return worker


def settings(far: FarSide) -> dict[str, str]:
    return {"STREAMAPP_ORDER_SERVICE_URL": far.url, "STREAMAPP_RETRY_DELAYS": "0,0,0"}


async def test_in_a_worker_it_is_carried_out_and_taken_back(stage: Stage, installed: str) -> None:
    stage.create_topics(1)
    async with far_side() as far:
        far.answers[ORDER] = [(200, {"order_id": "o-1"}), (422, {"error": "no mugs left"})]
        worker = stage.worker(PYTHONPATH=installed, LOYALTY_SERVICE_URL=far.url, **settings(far))
        await started(worker)
        await send(worker.settings, [wish("good"), wish("bad")])
        await wait_until_done(worker.settings, within=WITHIN)
        far.check()
        assert far.names() == [REDEEM, ORDER, REDEEM, ORDER, CANCEL]
        assert far.in_effect == 1
        assert json.loads(far.asked[0].body) == {"card_number": "C-7", "points": 1200}

        assert await status_of(stage, "good") == "COMPLETED"
        assert await status_of(stage, "bad") == "COMPENSATED"
        activities = await rows(
            stage, "SELECT 1 FROM lead_activities WHERE activity_type = 'reward_requested'"
        )
        assert len(activities) == 2
        tasks = await rows(
            stage,
            "SELECT DISTINCT message_id, status FROM"
            " (SELECT processing_id AS message_id, status FROM tasks) t",
        )
        assert {tuple(row) for row in tasks} == {("good", "pending"), ("bad", "cancelled")}
        replies = await read_all(worker.settings, worker.settings.outbound_topic)
        done, undone = (json.loads(reply.value)["text"] for reply in replies)
        assert done == "Your reward Mug is on its way."
        assert undone.startswith("We are sorry")  # nothing of it is on its way

        metrics = await worker.metrics()
        assert metrics["streamapp_ai_intents_detected_total"][("REWARD_REQUEST",)] == 2
        counted = metrics["streamapp_actions_total"]
        assert counted["redeem_points", "done"] == 2
        assert counted["note_reward", "done"] == 2
        assert metrics["streamapp_action_compensations_total"]["redeem_points", "done"] == 1
        assert metrics["streamapp_circuit_breaker_state"]["loyalty", "closed"] == 1
        assert metrics["streamapp_circuit_breaker_calls_total"]["loyalty", "success"] == 3
        assert await worker.stop() == 0


async def test_a_worker_without_it_parks_what_one_with_it_began(
    stage: Stage, installed: str
) -> None:
    """The plan is as it was stored: who does not know the action, leaves it to who does."""
    stage.create_topics(1)
    async with far_side() as far:
        far.always[ORDER] = (200, {"order_id": "o-1"})
        with_it = stage.worker(
            PYTHONPATH=installed,
            LOYALTY_SERVICE_URL=far.url,
            STREAMAPP_ENVIRONMENT="test",
            STREAMAPP_CRASH_POINT="step.answered",  # the points are taken, and nobody knows
            **settings(far),
        )
        await started(with_it)
        await send(with_it.settings, [wish("begun")])
        assert await with_it.ended() == -signal.SIGKILL

        without = await started(stage.worker(**settings(far)))
        await wait_until_done(without.settings, within=WITHIN)
        (saga,) = await rows(stage, "SELECT status, reason, error FROM sagas")
        assert (saga["status"], saga["reason"]) == ("STUCK", "plan_changed")
        assert "redeem_points" in saga["error"]
        assert far.names() == [REDEEM]
        assert await without.stop() == 0

        again = await started(
            stage.worker(PYTHONPATH=installed, LOYALTY_SERVICE_URL=far.url, **settings(far))
        )
        code, _, errors = await again.run("sagas", "resume", "begun", "--by", "somebody")
        assert code == 0, errors
        await until_async(lambda: completed(stage))
        assert far.names() == [REDEEM, REDEEM, ORDER]
        assert far.in_effect == 1
        far.check()


async def completed(stage: Stage) -> bool:
    return await status_of(stage, "begun") == "COMPLETED"


async def test_a_package_that_cannot_be_used_stops_the_start(
    stage: Stage, installed: str, tmp_path: Any
) -> None:
    broken = tmp_path / "broken"
    information = broken / "broken-2.0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 2.0\n")
    (information / "entry_points.txt").write_text("[streamapp.actions]\nbroken = nowhere:Broken\n")
    worker = stage.worker(PYTHONPATH=str(broken))
    for command in (["worker"], ["actions", "list"], ["intents", "list"]):
        code, _, errors = await worker.run(*command)
        assert code == 2, (command, errors)
        assert "Package broken 2.0, entry point broken of streamapp.actions cannot be" in errors
        assert "Traceback" not in errors
