"""Other systems that promise the same, each in an environment of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from benchmarks.contenders.base import (
    Contender,
    Session,
    commit_instants,
    commit_latencies,
    counts,
)
from benchmarks.contenders.by_hand import SCHEMA
from benchmarks.contenders.place import Place
from benchmarks.kafka import Kafka
from benchmarks.messages import Expected

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = Path(__file__).with_name("dbos.txt")
ENVIRONMENT = ROOT / ".cache" / "peers" / "dbos"
_WORKFLOWS = "dbos.workflow_status"
_ENDED = "status = 'SUCCESS'"


def install() -> None:
    """Make the environment, once; again when the pinned versions change."""
    pinned = REQUIREMENTS.read_text()
    stamp = ENVIRONMENT / "installed.txt"
    if stamp.exists() and stamp.read_text() == pinned:
        return
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(ENVIRONMENT)], check=True)
    subprocess.run(
        [ENVIRONMENT / "bin" / "python", "-m", "pip", "install", "--quiet", "-r", REQUIREMENTS],
        check=True,
    )
    stamp.write_text(pinned)


class Dbos(Contender):
    """A workflow of three steps for each message, its id the processing id."""

    name = "dbos"
    title = "DBOS: a workflow of three steps"
    share = 0.05
    share_waiting = 0.05
    peer = True

    def command(self, place: Place) -> list[str]:
        program = Path(__file__).with_name("dbos_app.py")
        return [str(ENVIRONMENT / "bin" / "python"), str(program)]

    def environment(self, place: Place) -> dict[str, str]:
        return {**place.environment(), "PYTHONPATH": str(ROOT)}

    async def prepare(self, place: Place, session: Session) -> None:
        await session.execute(SCHEMA.read_text())

    async def done(self, place: Place, kafka: Kafka, session: Session) -> int:
        if await session.fetchval("select to_regclass($1)", _WORKFLOWS) is None:
            return 0
        return (await counts(session, {"done": f"{_WORKFLOWS} where {_ENDED}"}))["done"]

    def outcomes(self, expected: Expected) -> int:
        return expected.messages

    async def instants(self, session: Session) -> list[float]:
        return await commit_instants(session, _WORKFLOWS, _ENDED)

    async def latencies(self, session: Session, sent: Mapping[str, float]) -> list[float]:
        return await commit_latencies(session, sent, _WORKFLOWS, "workflow_uuid", _ENDED)

    async def end_state(self, place: Place, kafka: Kafka, session: Session) -> dict[str, int]:
        found = await counts(
            session,
            {
                "completed": f"{_WORKFLOWS} where {_ENDED}",
                "other workflows": f"{_WORKFLOWS} where not {_ENDED}",
                "orders": "orders",
                "notifications": "notifications",
                "replies": "replies",
            },
        )
        return {**found, "committed": await kafka.committed(place.group, place.topic)}

    def right(self, expected: Expected) -> dict[str, int]:
        return {
            "completed": expected.messages,
            "other workflows": 0,
            "orders": expected.orders,
            "notifications": expected.orders,
            "replies": expected.orders,
            "committed": expected.records,
        }
