"""One contender, one set of messages, one run: start, watch, check the end state."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import asyncpg

from benchmarks.contenders.base import Contender, Session
from benchmarks.contenders.place import Place
from benchmarks.kafka import Kafka
from benchmarks.messages import Expected, Profile, Sent, expected, make
from benchmarks.process import Worker, WorkerEnded
from benchmarks.scenarios import LIGHT_LOAD, WARM_UP, Scenario, Variant
from benchmarks.servers import OrderServiceProcess, Servers
from benchmarks.statistics import (
    Sample,
    TooShort,
    cpu_per_thousand,
    differences,
    percentile,
    rate_of_instants,
    rate_of_samples,
    stretch,
)
from streamapp.demo.guardian import Guardian

LOOK = 0.1  # seconds between looks at a worker
PATIENCE = 90.0  # seconds without progress after which a run has failed
FEWEST = 50  # messages of a contender that gets only a part of them
SETTLES_WITHIN = 30.0  # seconds from the last outcome to the right end state

TRANSACTIONS = "select xact_commit from pg_stat_database where datname = current_database()"

OnFirst = Callable[[Worker], None]


@dataclass(slots=True)
class Result:
    """Figures of one run. With ``problems`` they count for nothing.

    ``rate``: records a second; ``cpu``: CPU seconds of the worker for 1,000 records; ``p50`` and
    ``p99``: seconds; ``memory``: the worker's resident bytes at the end; ``transactions``: of the
    database for each record, those of the looks at it (ten a second) included.
    """

    records: int
    problems: list[str] = field(default_factory=list)
    rate: float | None = None
    cpu: float | None = None
    p50: float | None = None
    p99: float | None = None
    memory: int | None = None
    transactions: float | None = None
    end_state: dict[str, int] = field(default_factory=dict)


class Bench:
    """Runs contenders on servers that are up. ``quick``: a run that is over too soon for a rate is
    none that failed."""

    def __init__(
        self, servers: Servers, kafka: Kafka, partitions: int, *, quick: bool = False
    ) -> None:
        self._quick = quick
        self._servers = servers
        self._kafka = kafka
        self._partitions = partitions
        self._topics: dict[Profile, str] = {}
        self._services: dict[float, OrderServiceProcess] = {}
        self._runs = 0

    def close(self) -> None:
        for each in self._services.values():
            each.close()
        self._services.clear()

    async def forget_topics(self) -> None:
        """The messages of a scenario that is over."""
        await self._kafka.delete(self._topics.values())
        self._topics.clear()

    async def run(
        self,
        contender: Contender,
        scenario: Scenario,
        variant: Variant,
        on_first: OnFirst | None = None,
    ) -> Result:
        """One run, everything of it fresh. ``on_first`` is called at the first outcome."""
        self._runs += 1
        waiting = bool(variant.delay)
        share = contender.share_waiting if waiting else contender.share
        profile = variant.profile
        if not scenario.light:
            profile = profile.first(max(int(profile.count * share), FEWEST))
        group = f"bench-{self._runs}"
        topic = await self._new_topic() if scenario.light else await self._filled_topic(profile)
        service = self._service(variant.delay)
        directory = self._servers.directory / group
        directory.mkdir()
        place = Place(
            bootstrap=self._servers.bootstrap,
            database=await self._servers.new_database(group),
            topic=topic,
            partitions=self._partitions,
            group=group,
            directory=directory,
            service=service.url if service else "",
        )
        if service is not None:
            await service.take_counts()
        session = await asyncpg.connect(place.database)
        run = _Run(
            self._servers.guardian, contender, place, self._kafka, session, on_first, service
        )
        try:
            await contender.prepare(place, session)
            if scenario.light:
                return await run.light(profile)
            result = Result(profile.count)
            try:
                await run.backlog(profile, scenario, result)
            except TooShort as error:
                if not self._quick:
                    result.problems.append(f"too short: {error}")
            return result
        except WorkerEnded as error:
            return Result(profile.count, [str(error)])
        finally:
            run.stop()
            await session.close()
            await self._servers.drop_database(group)
            await self._kafka.delete([*await self._kafka.named(f"{group}-")])
            shutil.rmtree(directory, ignore_errors=True)

    async def _new_topic(self) -> str:
        name = f"messages-{self._runs}"
        await self._kafka.create(name, self._partitions)
        return name

    async def _filled_topic(self, profile: Profile) -> str:
        """The topic with these messages, made once."""
        if profile not in self._topics:
            name = await self._new_topic()
            await self._kafka.produce(name, make(profile))
            self._topics[profile] = name
        return self._topics[profile]

    def _service(self, delay: float | None) -> OrderServiceProcess | None:
        if delay is None:
            return None
        if delay not in self._services:
            self._services[delay] = OrderServiceProcess(self._servers.guardian, delay)
        return self._services[delay]


class _Run:
    def __init__(
        self,
        guardian: Guardian,
        contender: Contender,
        place: Place,
        kafka: Kafka,
        session: Session,
        on_first: OnFirst | None,
        service: OrderServiceProcess | None,
    ) -> None:
        self._guardian = guardian
        self._service = service
        self._contender = contender
        self._place = place
        self._kafka = kafka
        self._session = session
        self._on_first = on_first
        self._worker: Worker | None = None

    async def backlog(self, profile: Profile, scenario: Scenario, result: Result) -> None:
        """All messages are there before the worker starts. Raises ``TooShort`` once the end state
        is known."""
        contender, want = self._contender, expected(profile)
        total = contender.outcomes(want)
        worker = self._start()
        samples = await self._watch(worker, total)
        result.memory = worker.memory()
        await self._settle(want, result)
        result.transactions = await self._session.fetchval(TRANSACTIONS) / want.records
        beyond = want.messages if scenario.beyond_unique else 0
        first, last = stretch(samples, total, scenario.until, beyond)
        # Records that leave no outcome of their own (repetitions) are work all the same.
        weight = want.records / total
        result.cpu = cpu_per_thousand(first, last) / weight
        if contender.has_instants:
            instants = await contender.instants(self._session)
            result.rate = rate_of_instants(instants, scenario.until) * weight
        else:
            result.rate = rate_of_samples(first, last)

    async def light(self, profile: Profile) -> Result:
        """Messages come one by one; the first ones only warm the worker up."""
        contender = self._contender
        records = list(make(profile))
        result = Result(len(records))
        worker = self._start()
        warm = await self._kafka.produce_slowly(self._place.topic, records[:WARM_UP], LIGHT_LOAD)
        await self._watch(worker, len(warm))
        stamps = await self._send(records[WARM_UP:])
        await self._watch(worker, len(records))
        result.memory = worker.memory()
        await self._settle(expected(profile), result)
        latencies = await contender.latencies(self._session, stamps)
        result.p50, result.p99 = percentile(latencies, 0.5), percentile(latencies, 0.99)
        return result

    async def _send(self, records: list[Sent]) -> dict[str, float]:
        return await self._kafka.produce_slowly(self._place.topic, records, LIGHT_LOAD)

    def stop(self) -> None:
        if self._worker is not None:
            self._worker.stop()

    def _start(self) -> Worker:
        place = self._place
        self._worker = Worker(
            self._guardian,
            self._contender.command(place),
            self._contender.environment(place),
        )
        return self._worker

    async def _watch(self, worker: Worker, total: int) -> list[Sample]:
        """Samples until ``total`` outcomes are durable. Raises ``WorkerEnded``, also for a worker
        that makes no progress."""
        samples: list[Sample] = []
        progress = time.monotonic()
        while True:
            done = await self._contender.done(self._place, self._kafka, self._session)
            now = time.monotonic()
            if not samples or done > samples[-1].done:
                progress = now
                if done and not (samples and samples[-1].done) and self._on_first is not None:
                    self._on_first(worker)
            samples.append(Sample(now, done, worker.cpu_seconds()))
            if done >= total:
                return samples
            if now - progress > PATIENCE:
                raise WorkerEnded(f"no progress for {PATIENCE:g} s at {done} of {total} outcomes")
            await asyncio.sleep(LOOK)

    async def _settle(self, want: Expected, result: Result) -> None:
        """Wait for the right end state; what is not right in time is a problem of the result."""
        contender, right = self._contender, self._contender.right(want)
        deadline = time.monotonic() + SETTLES_WITHIN
        while True:
            found = await contender.end_state(self._place, self._kafka, self._session)
            if found == right or time.monotonic() > deadline:
                result.end_state = found
                result.problems += differences(right, found)
                break
            await asyncio.sleep(LOOK)
        if self._service is not None:
            found = await self._service.take_counts()
            right = {"created": want.orders, "refused": want.rejected}
            asked = {name: found.get(name, 0) for name in right}
            result.problems += differences(right, asked)
            result.end_state |= {f"order service: {name}": n for name, n in found.items()}
