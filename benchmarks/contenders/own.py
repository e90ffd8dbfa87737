"""streamapp itself, started as its users start it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path

from benchmarks.contenders.base import (
    Contender,
    Session,
    commit_instants,
    commit_latencies,
    counts,
    python,
)
from benchmarks.contenders.place import Place
from benchmarks.kafka import Kafka
from benchmarks.messages import Expected
from benchmarks.process import inherited
from tests.support.worker import free_port

PROGRAM = Path(sys.executable).with_name("streamapp")


class Streamapp(Contender):
    """``streamapp worker`` with its default settings: only addresses, names and directory are
    given. An outcome is the reply, or the dead letter of a refused order, once it is committed,
    published to Kafka and marked as published."""

    name = "streamapp"
    title = "streamapp"
    more: Mapping[str, str] = {}

    def command(self, place: Place) -> list[str]:
        return [str(PROGRAM), "worker"]

    def environment(self, place: Place) -> dict[str, str]:
        given = {
            "STREAMAPP_KAFKA_BOOTSTRAP_SERVERS": place.bootstrap,
            "STREAMAPP_DATABASE_URL": place.database,
            "STREAMAPP_DATA_DIR": str(place.directory / "state"),
            "STREAMAPP_WEB_PORT": str(free_port()),
            "STREAMAPP_CONSUMER_GROUP": place.group,
            "STREAMAPP_INPUT_TOPIC": place.topic,
            "STREAMAPP_DLQ_TOPIC": _dead_letters(place),
            "STREAMAPP_OUTBOUND_TOPIC": _outbound(place),
            "STREAMAPP_TOPIC_PARTITIONS": str(place.partitions),
        }
        if place.service:
            given["STREAMAPP_ORDER_SERVICE_URL"] = place.service
        return {**given, **self.more}

    async def prepare(self, place: Place, session: Session) -> None:
        migrate = await asyncio.create_subprocess_exec(
            PROGRAM,
            "migrate",
            env={**inherited(), **self.environment(place)},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await migrate.communicate()
        if migrate.returncode != 0:
            raise RuntimeError(f"streamapp migrate: {output.decode()}")

    async def done(self, place: Place, kafka: Kafka, session: Session) -> int:
        done: int = await session.fetchval(
            "select count(*) from outbox where published_at is not null"
        )
        return done

    def outcomes(self, expected: Expected) -> int:
        return expected.messages

    async def instants(self, session: Session) -> list[float]:
        return await commit_instants(session, "outbox", "published_at is not null")

    async def latencies(self, session: Session, sent: Mapping[str, float]) -> list[float]:
        return await commit_latencies(session, sent)

    async def end_state(self, place: Place, kafka: Kafka, session: Session) -> dict[str, int]:
        order, sale = "task_type = 'order_processing'", "task_type = 'sales_notification'"
        found = await counts(
            session,
            {
                "completed": "sagas where status = 'COMPLETED'",
                "compensated": "sagas where status = 'COMPENSATED'",
                "other sagas": "sagas where status not in ('COMPLETED', 'COMPENSATED')",
                "order tasks": f"tasks where status = 'pending' and {order}",
                "sales tasks": f"tasks where status = 'pending' and {sale}",
                "processed": "processed_messages where processing_status = 'success'",
                "unpublished": "outbox where published_at is null",
                "dead letters": "dead_letter_queue",
            },
        )
        return {
            **found,
            "replies": await kafka.records(_outbound(place), place.partitions),
            "dead letters on the topic": await kafka.records(
                _dead_letters(place), place.partitions
            ),
            "committed": await kafka.committed(place.group, place.topic),
        }

    def right(self, expected: Expected) -> dict[str, int]:
        letters = expected.rejected + expected.invalid
        return {
            "completed": expected.orders,
            "compensated": expected.rejected,
            "other sagas": 0,
            "order tasks": expected.orders,
            "sales tasks": expected.orders,
            "processed": expected.orders,
            "unpublished": 0,
            "dead letters": letters,
            "replies": expected.orders,
            "dead letters on the topic": letters,
            "committed": expected.records,
        }


class WithoutMetrics(Streamapp):
    """What counts is replaced by nothing, in the process of the worker."""

    name = "streamapp-without-metrics"
    title = "streamapp, nothing counted"

    def command(self, place: Place) -> list[str]:
        return [*python("benchmarks.contenders.without_metrics"), "worker"]


class Acknowledged(Streamapp):
    """Seen by its committed offsets, for messages that leave no row of their own; they are
    committed ten times a second instead of once, so that the end is seen when it is there."""

    name = "streamapp-acknowledged"
    title = "streamapp, commits of offsets every 0.1 s"
    more: Mapping[str, str] = {"STREAMAPP_COMMIT_INTERVAL": "0.1"}
    has_instants = False

    async def done(self, place: Place, kafka: Kafka, session: Session) -> int:
        return await kafka.committed(place.group, place.topic)

    def outcomes(self, expected: Expected) -> int:
        return expected.records


def _dead_letters(place: Place) -> str:
    return f"{place.group}-dlq"


def _outbound(place: Place) -> str:
    return f"{place.group}-outbound"
