"""Breaks everything at random for some minutes, then shows that nothing went wrong.

``python -m tests.chaos --minutes 10 --seed 7``. Exit code 0: every check passed; 1: violations,
or work that did not come to its end; 130: interrupted.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from random import SystemRandom

from tests.chaos.checks import Case, summary
from tests.chaos.cluster import Cluster
from tests.chaos.collect import collect, wait_until_settled
from tests.chaos.evidence import Event, Violation
from tests.chaos.order import CHECKS
from tests.chaos.report import show, show_violations, write_files
from tests.chaos.saboteur import Saboteur
from tests.chaos.schedule import schedule
from tests.chaos.services import MailServer, OrderService
from tests.chaos.traffic import Stream, Traffic

LOGS = Path("var/chaos")
SETTLE_WITHIN = 300.0  # seconds after the last fault


class Run:
    """One run, from the first process to the verdict."""

    def __init__(self, options: argparse.Namespace, directory: Path) -> None:
        self.options = options
        self.directory = directory
        self.events: list[Event] = []
        self.began = datetime.now(UTC)
        self._zero = time.monotonic()
        self.cluster = Cluster(directory, self.tell)

    def clock(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self._zero

    def tell(self, text: str) -> None:
        """Note and print what happens."""
        at = self.clock()
        self.events.append(Event(round(at, 3), text))
        print(f"{datetime.now(UTC):%H:%M:%S}  {at:7.1f} s  {text}", flush=True)

    async def carry_out(self) -> list[Violation]:
        """The run; gives what it found."""
        orders = OrderService(self.clock, self.options.seed)
        mail = MailServer(self.clock, self.options.seed)
        try:
            return await self._carry_out(orders, mail)
        finally:
            await orders.stop()
            await mail.stop()

    async def _carry_out(self, orders: OrderService, mail: MailServer) -> list[Violation]:
        options, cluster = self.options, self.cluster
        await cluster.start(options.workers, await orders.start(), await mail.start())
        assert cluster.broker is not None
        traffic = Traffic(options.seed)
        await self._know_leads(traffic)
        settings = cluster.settings
        stream = Stream(traffic, cluster.broker.bootstrap, settings.input_topic, options.rate)
        saboteur = Saboteur(cluster, options.workers, orders, mail, self.tell)
        self.tell(f"{options.workers} workers are ready, the stream begins")
        seconds = options.minutes * 60
        supervising = asyncio.create_task(cluster.supervise())
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(stream.run(seconds))
                group.create_task(saboteur.run(schedule(options.seed, seconds)))
            self.tell(f"faults and stream are over: {len(traffic.sent)} records were sent")
            left = await wait_until_settled(cluster, SETTLE_WITHIN)
            self.tell(f"not settled: {left}" if left else "everything has come to its end")
            evidence = await collect(cluster, traffic, stream, orders, mail)
        finally:
            supervising.cancel()
        case = Case(evidence)
        violations: list[Violation] = []
        looked_at = {}
        for name, check in CHECKS.items():
            count, found = check(case)
            looked_at[name] = (count, len(found))
            violations += found
        if left:
            violations.append(Violation("lost", f"did not come to an end: {left}"))
        self._report(case, looked_at, violations, saboteur, stream)
        return violations

    async def _know_leads(self, traffic: Traffic) -> None:
        connection = await self.cluster.connect()
        try:
            await connection.executemany(
                "insert into leads values ($1, 'business-1', 'tenant-1', 'new')",
                [(lead,) for lead in traffic.leads()],
            )
        finally:
            await connection.close()

    def _report(
        self,
        case: Case,
        looked_at: dict[str, tuple[int, int]],
        violations: list[Violation],
        saboteur: Saboteur,
        stream: Stream,
    ) -> None:
        print(f"\nseed {self.options.seed}, {self.options.minutes:g} minutes")
        faults = ", ".join(f"{count} x {kind}" for kind, count in sorted(saboteur.done.items()))
        print(f"  {'faults':<24} {faults}")
        print(f"  {'ended by themselves':<24} {self.cluster.restarts} workers, started again")
        if stream.failures:
            print(f"  {'given up by producer':<24} {stream.failures}: the log tells their fate")
        show(case, looked_at)
        show_violations(case, violations, self.events, self.began)
        write_files(self.directory, case, violations, self.events, self.began)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="length of the stream")
    parser.add_argument("--seed", type=int, help="of messages and faults; default: a random one")
    parser.add_argument("--rate", type=float, default=100.0, help="records a second")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    if options.seed is None:
        options.seed = SystemRandom().randrange(1_000_000)
    return options


def main() -> int:
    options = _options()
    directory = LOGS / f"{datetime.now(UTC):%Y%m%d-%H%M%S}-seed-{options.seed}"
    directory.mkdir(parents=True)
    print(f"seed {options.seed}; logs in {directory}", flush=True)
    # What the Kafka client says of a broker that is away.
    logging.basicConfig(filename=directory / "chaos.log", format="%(asctime)s %(message)s")
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    run = Run(options, directory.absolute())
    try:
        violations = asyncio.run(run.carry_out())
    except KeyboardInterrupt:
        print("interrupted", flush=True)
        return 130
    finally:
        run.cluster.close()
    if violations:
        print(f"logs and evidence: {directory}")
    print(summary(violations))
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
