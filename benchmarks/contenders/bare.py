"""Faust agents that do next to nothing: the ceiling."""

from __future__ import annotations

from benchmarks.contenders.base import OnFaust, Session
from benchmarks.contenders.place import Place
from benchmarks.kafka import Kafka
from benchmarks.messages import Expected


class Bare(OnFaust):
    """Seen by its committed offsets alone."""

    name = "bare"
    title = "bare Faust agent, nothing done"
    agent = "nothing"
    has_instants = False

    async def done(self, place: Place, kafka: Kafka, session: Session) -> int:
        return await kafka.committed(place.group, place.topic)

    def outcomes(self, expected: Expected) -> int:
        return expected.records

    async def end_state(self, place: Place, kafka: Kafka, session: Session) -> dict[str, int]:
        return {"committed": await kafka.committed(place.group, place.topic)}

    def right(self, expected: Expected) -> dict[str, int]:
        return {"committed": expected.records}


class BareTable(Bare):
    """Each message writes its id to the table, and so to the table's changelog."""

    name = "table"
    title = "bare Faust agent, one RocksDB table write"
    agent = "table"

    async def end_state(self, place: Place, kafka: Kafka, session: Session) -> dict[str, int]:
        changelog = f"{place.group}-seen-changelog"
        return {
            **await super().end_state(place, kafka, session),
            "table writes": await kafka.records(changelog, place.partitions),
        }

    def right(self, expected: Expected) -> dict[str, int]:
        return {**super().right(expected), "table writes": expected.records}
