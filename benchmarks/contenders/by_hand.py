"""The same work written by hand on Faust."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from benchmarks.contenders.base import (
    OnFaust,
    Session,
    commit_instants,
    commit_latencies,
    counts,
)
from benchmarks.contenders.place import Place
from benchmarks.kafka import Kafka
from benchmarks.messages import Expected

SCHEMA = Path(__file__).with_name("schema.sql")


class ByHand(OnFaust):
    """Counted by its rows; a row of ``processed_messages`` is written last."""

    async def prepare(self, place: Place, session: Session) -> None:
        await session.execute(SCHEMA.read_text())

    async def done(self, place: Place, kafka: Kafka, session: Session) -> int:
        done: int = await session.fetchval("select count(*) from processed_messages")
        return done

    def outcomes(self, expected: Expected) -> int:
        return expected.messages

    async def instants(self, session: Session) -> list[float]:
        return await commit_instants(session)

    async def latencies(self, session: Session, sent: Mapping[str, float]) -> list[float]:
        return await commit_latencies(session, sent)

    async def end_state(self, place: Place, kafka: Kafka, session: Session) -> dict[str, int]:
        found = await counts(
            session,
            {
                "completed": "sagas where status = 'COMPLETED'",
                "failed": "sagas where status = 'FAILED'",
                "steps": "saga_steps where status = 'DONE'",
                "orders": "orders",
                "notifications": "notifications",
                "replies": "replies",
                "dead letters": "dead_letters",
            },
        )
        return {**found, "committed": await kafka.committed(place.group, place.topic)}

    def right(self, expected: Expected) -> dict[str, int]:
        return {
            "completed": expected.orders,
            "failed": expected.rejected,
            "steps": 3 * expected.orders,
            "orders": expected.orders,
            "notifications": expected.orders,
            "replies": expected.orders,
            "dead letters": expected.rejected + expected.invalid,
            "committed": expected.records,
        }


class OneAtATime(ByHand):
    name = "one-at-a-time"
    title = "straightforward agent, one message at a time"
    agent = "one_at_a_time"
    share = 0.1
    share_waiting = 0.02


class DaysWork(ByHand):
    name = "days-work"
    title = "concurrent agent: 256 in flight, order per lead, pool of 20"
    agent = "days_work"
    share = 0.3
    share_waiting = 0.3
