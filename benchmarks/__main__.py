"""``python -m benchmarks``: starts the servers, runs everything in turn, shows and writes tables.

Exit code 0: every run that was asked for gave a result; 1: one did not; 130: interrupted.
"""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from benchmarks import lookups, restore
from benchmarks.contenders import peers
from benchmarks.contenders.catalogue import CONTENDERS
from benchmarks.facts import facts
from benchmarks.figures import FigureReport
from benchmarks.kafka import Kafka
from benchmarks.measuring import Bench, Result
from benchmarks.options import TABLE_SCENARIOS, Options, parse
from benchmarks.profiling import Format, Recording, costs, list_costs
from benchmarks.report import ScenarioReport, as_markdown, as_text, label
from benchmarks.scenarios import SCENARIOS, Row, Scenario
from benchmarks.servers import Servers

RESULTS = Path(__file__).with_name("results")

say = partial(print, flush=True)


def chosen(scenario: Scenario, options: Options) -> list[Row]:
    """The rows that are run."""
    return [
        row
        for row in scenario.rows
        if (not options.contenders or row.contender in options.contenders)
        and (options.peers or not CONTENDERS[row.contender].peer)
    ]


async def measure(bench: Bench, options: Options, name: str) -> ScenarioReport:
    """All rounds of a scenario: A B C, A B C, ..."""
    scenario = SCENARIOS[name](options.base(name))
    report = ScenarioReport(scenario)
    for number in range(1, options.rounds + 1):
        for row in chosen(scenario, options):
            began = time.monotonic()
            result = await bench.run(
                CONTENDERS[row.contender], scenario, scenario.variants[row.variant]
            )
            report.results[row].append(result)
            say(
                f"{name}, round {number}: {label(row)}: {_short(result)} "
                f"({time.monotonic() - began:.0f} s in all)"
            )
    return report


def _short(result: Result) -> str:
    if result.problems:
        return "; ".join(result.problems)
    if result.p99 is None and result.rate is None:
        return "over too soon for a rate"
    if result.rate is None:
        return f"p99 {(result.p99 or 0) * 1000:.1f} ms"
    return f"{result.rate:,.0f}/s, {result.cpu or 0:.3f} CPU s per 1,000"


async def profile(bench: Bench, options: Options, name: str, directory: Path) -> None:
    """Two further runs of streamapp, recorded: their figures are not counted."""
    scenario = SCENARIOS[name](options.base(name))
    row = next((row for row in scenario.rows if row.contender.startswith("streamapp")), None)
    if row is None:
        return
    variant = scenario.variants[row.variant]
    forms: tuple[tuple[Format, str], ...] = (("flamegraph", "svg"), ("raw", "stacks.txt"))
    for form, ending in forms:
        target = directory / f"{name}.{ending}"
        recording = Recording(target, form)
        result = await bench.run(CONTENDERS[row.contender], scenario, variant, recording.begin)
        recording.finish()
        say(f"{name}, recorded: {_short(result)}: {target}")
    lines = list_costs(costs((directory / f"{name}.stacks.txt").read_text().splitlines()))
    (directory / f"{name}.functions.txt").write_text("\n".join(lines))
    say("\n".join(lines))


async def measure_table(
    servers: Servers, kafka: Kafka, options: Options, name: str
) -> FigureReport:
    """A scenario of the deduplication table."""
    if name == lookups.ABOUT.name:
        keys = options.keys or (lookups.QUICK_KEYS if options.quick else lookups.KEYS)
        return await lookups.measure(servers.directory / name, keys, options.rounds)
    keys = options.keys or (restore.QUICK_KEYS if options.quick else restore.KEYS)
    return await restore.Restoring(servers, kafka, options.partitions, keys).measure(options.rounds)


async def run_all(options: Options, directory: Path) -> list[ScenarioReport | FigureReport]:
    """Every scenario on the same servers; the files are written after each."""
    if options.peers:
        peers.install()
    async with Servers() as servers:
        say("starting Kafka and PostgreSQL")
        await servers.start()
        known = await facts(servers, options)
        for fact, value in known.items():
            say(f"{fact}: {value}")
        kafka = Kafka(servers.bootstrap)
        await kafka.start()
        runner = Bench(servers, kafka, options.partitions, quick=options.quick)
        reports: list[ScenarioReport | FigureReport] = []
        try:
            for name in options.scenarios:
                if name in TABLE_SCENARIOS:
                    reports.append(await measure_table(servers, kafka, options, name))
                else:
                    reports.append(await measure(runner, options, name))
                say("", *as_text(reports[-1]), "", sep="\n")
                write(directory, known, options, reports)
                if options.profile and name in SCENARIOS:
                    await profile(runner, options, name, directory)
                await runner.forget_topics()
        finally:
            runner.close()
            await kafka.close()
    return reports


def write(
    directory: Path,
    known: dict[str, object],
    options: Options,
    reports: Sequence[ScenarioReport | FigureReport],
) -> None:
    """Both files anew."""
    given = {**asdict(options), "contenders": sorted(options.contenders)}
    content = {
        "facts": known,
        "options": given,
        "scenarios": [report.as_json() for report in reports],
    }
    (directory / "results.json").write_text(json.dumps(content, indent=1) + "\n")
    (directory / "results.md").write_text(as_markdown(known, reports))


def main() -> int:
    options = parse()
    directory = RESULTS / f"{datetime.now(UTC):%Y%m%d-%H%M%S}"
    directory.mkdir(parents=True)
    logging.basicConfig(filename=directory / "bench.log", format="%(asctime)s %(message)s")
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        reports = asyncio.run(run_all(options, directory))
    except KeyboardInterrupt:
        say("interrupted")
        return 130
    say(f"written: {directory.relative_to(Path.cwd())}")
    if options.as_json:
        say(json.dumps(json.loads((directory / "results.json").read_text())))
    return 1 if any(report.problems for report in reports) else 0


if __name__ == "__main__":
    sys.exit(main())
