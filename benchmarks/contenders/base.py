"""What a contender is to the benchmark: a program to start, and what it leaves behind."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping

from benchmarks.contenders.place import Place
from benchmarks.kafka import Kafka
from benchmarks.messages import Expected
from streamapp.storage.connection import Connection

Session = Connection  # of the run's own database


class Contender(ABC):
    """``share``: the part of the messages that it is given, the first ones, so that slow ones end
    in time; ``share_waiting``: the same where an order takes the service 50 ms."""

    name: str
    title: str
    share: float = 1.0
    share_waiting: float = 1.0
    peer = False  # installed apart, and run only when asked for
    has_instants = True  # whether the database tells the instant of each outcome

    @abstractmethod
    def command(self, place: Place) -> list[str]:
        """What starts the worker."""

    def environment(self, place: Place) -> dict[str, str]:
        return place.environment()

    async def prepare(self, place: Place, session: Session) -> None:  # noqa: B027 - none is needed
        """Before the worker starts: schema, topics."""

    @abstractmethod
    async def done(self, place: Place, kafka: Kafka, session: Session) -> int:
        """How many outcomes are durable; cheap, it is asked again and again."""

    @abstractmethod
    def outcomes(self, expected: Expected) -> int:
        """What ``done`` is in the end."""

    async def instants(self, session: Session) -> list[float]:
        """Unix time of the commit of each outcome, in order."""
        raise NotImplementedError

    async def latencies(self, session: Session, sent: Mapping[str, float]) -> list[float]:
        """Seconds from the record's timestamp to the commit that ends its message."""
        raise NotImplementedError

    @abstractmethod
    async def end_state(self, place: Place, kafka: Kafka, session: Session) -> dict[str, int]:
        """Counts of what is there in the end."""

    @abstractmethod
    def right(self, expected: Expected) -> dict[str, int]:
        """What ``end_state`` has to be."""


class OnFaust(Contender):
    """One of the agents of ``faust_apps``."""

    agent: str

    def command(self, place: Place) -> list[str]:
        program = python("benchmarks.contenders.faust_apps")
        return [*program, "worker", "-l", "info", "--without-web"]

    def environment(self, place: Place) -> dict[str, str]:
        return {**super().environment(place), "BENCH_AGENT": self.agent}


def python(module: str) -> list[str]:
    return [sys.executable, "-m", module]


async def commit_instants(
    session: Session, table: str = "processed_messages", where: str = "true"
) -> list[float]:
    """When the transactions committed that wrote the rows as they are now."""
    rows = await session.fetch(
        "select extract(epoch from pg_xact_commit_timestamp(xmin))::float8 as at "
        f"from {table} where {where} order by 1"
    )
    return [row["at"] for row in rows]


async def commit_latencies(
    session: Session,
    sent: Mapping[str, float],
    table: str = "processed_messages",
    id_: str = "message_id",
    where: str = "true",
) -> list[float]:
    """From the timestamps of ``sent``, by id, to those commits. Every contender that keeps
    ``processed_messages`` writes it last."""
    rows = await session.fetch(
        f"select {id_} as id, extract(epoch from pg_xact_commit_timestamp(xmin))::float8 as at "
        f"from {table} where {where}"
    )
    return [row["at"] - sent[row["id"]] for row in rows if row["id"] in sent]


async def counts(session: Session, queries: Mapping[str, str]) -> dict[str, int]:
    return {
        name: await session.fetchval(f"select count(*) from {q}") for name, q in queries.items()
    }
