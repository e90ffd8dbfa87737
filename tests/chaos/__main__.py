"""Breaks everything at random for some minutes, then shows that nothing went wrong.

``python -m tests.chaos --minutes 10 --seed 7``. Exit code 0: every check passed; 1: violations,
work that stood still, or a run that shows nothing; 130: interrupted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import signal
import sys
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from random import SystemRandom

from tests.chaos.checks import summary
from tests.chaos.defects import DEFECTS
from tests.chaos.run import Options, Run, planned
from tests.chaos.schedule import AT_MOST, schedule

LOGS = Path("var/chaos")
REPEATED = """\
The seed repeats: the messages with their order, the list of faults of each target with pauses,
lengths and shares, and the chances of the services. It does not repeat: the moment of a fault
(5 to 15 s after a worker is ready and has committed records, or after a server is back), which
worker owns what, and how the processes interleave."""


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="length of the stream")
    parser.add_argument("--seed", type=int, help="of messages and faults; default: a random one")
    parser.add_argument("--rate", type=float, default=60.0, help="records a second")
    parser.add_argument(
        "--workers",
        type=int,
        default=2,
        choices=range(1, AT_MOST + 1),
        help=f"workers to begin with; others join for a while, up to {AT_MOST} in all",
    )
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    parser.add_argument(
        "--defect",
        choices=sorted(DEFECTS),
        help="plant this defect in the workers: the run has to find it, and ends with 1",
    )
    options = parser.parse_args()
    if options.seed is None:
        options.seed = SystemRandom().randrange(1_000_000)
    return options


def main() -> int:
    given = _options()
    say = partial(print, flush=True)
    directory = LOGS / f"{datetime.now(UTC):%Y%m%d-%H%M%S}-seed-{given.seed}"
    directory.mkdir(parents=True)
    # What the Kafka client says of a broker that is away.
    logging.basicConfig(filename=directory / "chaos.log", format="%(asctime)s %(message)s")
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    seconds = given.minutes * 60
    faults = schedule(given.seed, seconds, given.workers)
    options = Options(given.seed, seconds, given.workers, given.rate, faults)
    say(f"seed {given.seed}, {given.minutes:g} minutes, {given.workers} workers; logs: {directory}")
    say(REPEATED)
    say(f"{planned(faults).total()} faults are planned")
    if given.defect:
        program = ("-m", "tests.chaos.defective", given.defect)
        options = Options(given.seed, seconds, given.workers, given.rate, faults, program)
        say(f"planted defect: {DEFECTS[given.defect].__doc__}")
    run = Run(options, directory.absolute(), say)
    try:
        report = asyncio.run(run.carry_out())
    except KeyboardInterrupt:
        say("interrupted")
        return 130
    finally:
        run.close()
    report.seconds = run.clock()
    say("")
    report.show(say)
    report.write_files(directory)
    say(f"seed {given.seed}, {report.seconds:.0f} s in all; logs and evidence: {directory}")
    say(summary(report.violations))
    failed = bool(report.violations)
    if given.json:
        what = {"seed": given.seed, "minutes": given.minutes, "workers": given.workers}
        say(json.dumps({"ok": not failed, **what, **report.as_json()}))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
