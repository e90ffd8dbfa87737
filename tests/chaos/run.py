"""One run: everything is started, fed and broken, comes to its end, and is held to account."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tests.chaos.checks import Case
from tests.chaos.cluster import Cluster
from tests.chaos.collect import collect, wait_until_settled
from tests.chaos.evidence import Event, Violation
from tests.chaos.order import CHECKS
from tests.chaos.report import Report
from tests.chaos.saboteur import Saboteur
from tests.chaos.schedule import FaultKind, Schedule
from tests.chaos.services import MailServer, OrderService
from tests.chaos.traffic import Stream, Traffic
from tests.chaos.watch import Watch

PATIENCE = 90.0  # seconds without any progress after which what is left counts as given up
# A run that is behind its schedule begins no fault more once it has taken so many times as long.
OVERTIME = 2.0
IDLE = 0.25  # of the planned rate; a stream below it is idle
BACKLOG = 2000  # records; beyond it the stream waits for the workers


@dataclass(frozen=True, slots=True)
class Options:
    """What a run is like. ``program`` is what Python runs as a worker, ``rate`` in records a
    second, ``seconds`` the least that the stream lasts."""

    seed: int
    seconds: float
    workers: int
    rate: float
    faults: Schedule
    program: tuple[str, ...] = ("-m", "streamapp")


class Run:
    """``close`` has to be called in the end, whatever happened."""

    def __init__(
        self, options: Options, directory: Path, say: Callable[[str], None] = print
    ) -> None:
        self.options = options
        self.directory = directory
        self.events: list[Event] = []
        self.began = datetime.now(UTC)
        self._say = say
        self._zero = time.monotonic()
        self.cluster = Cluster(directory, self.tell, options.program)
        self.close = self.cluster.close

    def clock(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self._zero

    def tell(self, text: str) -> None:
        """Note and say what happens."""
        at = self.clock()
        self.events.append(Event(round(at, 3), text))
        self._say(f"{datetime.now(UTC):%H:%M:%S}  {at:7.1f} s  {text}")

    async def carry_out(self) -> Report:
        """The run; gives what it found."""
        orders = OrderService(self.clock, self.options.seed)
        mail = MailServer(self.clock, self.options.seed)
        try:
            return await self._carry_out(orders, mail)
        finally:
            await orders.stop()
            await mail.stop()

    async def _carry_out(self, orders: OrderService, mail: MailServer) -> Report:
        options, cluster = self.options, self.cluster
        await cluster.start(options.workers, await orders.start(), await mail.start())
        assert cluster.broker is not None
        traffic = Traffic(options.seed)
        await self._know_leads(traffic)
        settings = cluster.settings
        watch = Watch(settings, self.clock)

        def crowded() -> bool:
            return len(stream.acknowledged) - watch.committed > BACKLOG

        stream = Stream(
            traffic, cluster.broker.bootstrap, settings.input_topic, options.rate, crowded
        )
        saboteur = Saboteur(cluster, watch, stream, orders, mail, self.tell, self.clock)
        self.tell(f"{options.workers} workers are ready, the stream begins")
        background = [
            asyncio.create_task(cluster.supervise()),
            asyncio.create_task(watch.run()),
        ]
        try:
            seconds = await self._break(stream, saboteur)
            self.tell(f"faults and stream are over: {len(traffic.sent)} records were sent")
            left = await wait_until_settled(cluster, PATIENCE)
            self.tell(f"not settled: {left}" if left else "everything has come to its end")
            evidence = await collect(cluster, traffic, stream, orders, mail)
        finally:
            for task in background:
                task.cancel()
        case = Case(evidence)
        report = Report(case, self.events, self.began)
        report.add(saboteur.violations)
        if left:
            report.add([Violation("no progress", f"did not come to an end: {left}")])
        for name, check in CHECKS.items():
            report.judge(name, *check(case))
        report.add(self._shows_nothing(saboteur, stream, seconds, report))
        report.planned = planned(options.faults)
        report.carried_out = saboteur.done
        report.restarts = cluster.restarts
        report.given_up = stream.failures
        report.waited = stream.waited
        return report

    async def _break(self, stream: Stream, saboteur: Saboteur) -> float:
        """Send and break until both are through; gives the seconds that it took."""
        began = self.clock()
        until = began + self.options.seconds
        sending = asyncio.create_task(stream.run(math.inf))
        try:
            await saboteur.run(self.options.faults, began + OVERTIME * self.options.seconds)
            await asyncio.wait({sending}, timeout=max(0.0, until - self.clock()))
        finally:
            stream.end()
        await sending
        return self.clock() - began

    def _shows_nothing(
        self, saboteur: Saboteur, stream: Stream, seconds: float, report: Report
    ) -> list[Violation]:
        """What is missing without which the absence of violations would mean nothing."""
        found = [
            f"{kind} was planned and never carried out"
            for kind in planned(self.options.faults)
            if not saboteur.done[kind]
        ]
        sent, due = len(stream.acknowledged), self.options.rate * (seconds - stream.waited)
        if sent < IDLE * due:
            found.append(f"the stream was idle: {sent} of {due:.0f} records were sent")
        found += [f"nothing was looked at: {name}" for name in report.without_evidence]
        return [Violation("shows nothing", text) for text in found]

    async def _know_leads(self, traffic: Traffic) -> None:
        connection = await self.cluster.connect()
        try:
            await connection.executemany(
                "insert into leads values ($1, 'business-1', 'tenant-1', 'new')",
                [(lead,) for lead in traffic.leads()],
            )
        finally:
            await connection.close()


def planned(faults: Schedule) -> Counter[FaultKind]:
    """How often each kind is to be carried out."""
    return Counter(fault.kind for list_ in faults.values() for fault in list_)
