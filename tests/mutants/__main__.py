"""Breaks the code on purpose and shows that the named tests notice.

``python -m tests.mutants [NAME...] [--part K/N | --rotate N] [--kafka] [--list] [--json]``.
Exit code 0: all were caught; 1: one survived, does not apply, or breaks its test; 2: wrong use.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.mutants.databases import servers
from tests.mutants.patches import PATCHES, Mutant, Unreadable, load
from tests.mutants.runner import Result, Runner, Verdict

ROOT = Path(__file__).parents[2]


def _part(text: str) -> tuple[int, int]:
    number, _, count = text.partition("/")
    try:
        part = int(number), int(count)
    except ValueError:
        raise argparse.ArgumentTypeError("K/N, as in 2/4") from None
    if not 1 <= part[0] <= part[1]:
        raise argparse.ArgumentTypeError("K is a number from 1 to N")
    return part


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError("a number from 1")
    return int(text)


def arguments(given: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--part", type=_part, metavar="K/N", help="part K of N")
    which.add_argument(
        "--rotate", type=_count, metavar="N", help="one part of N, another one each day (UTC)"
    )
    parser.add_argument("--kafka", action="store_true", help="also those that need Apache Kafka")
    parser.add_argument("--list", action="store_true", help="show them, run nothing")
    parser.add_argument("--json", action="store_true", help="one JSON object at the end")
    jobs = min(2, len(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else 2
    parser.add_argument("--jobs", type=_count, default=jobs, help="mutants at once")
    parser.add_argument("--root", type=Path, default=ROOT, help=argparse.SUPPRESS)
    parser.add_argument("--patches", type=Path, default=PATCHES, help=argparse.SUPPRESS)
    return parser.parse_args(given)


def part_of_day(count: int, day: datetime) -> tuple[int, int]:
    """Each of ``count`` parts has its turn once in as many days."""
    return day.toordinal() % count + 1, count


def chosen(mutants: list[Mutant], options: argparse.Namespace) -> list[Mutant]:
    """Raises ``Unreadable`` for a name that no mutant has."""
    if unknown := sorted(set(options.names) - {mutant.name for mutant in mutants}):
        raise Unreadable(f"no such mutant: {', '.join(unknown)}")
    if options.names:
        mutants = [mutant for mutant in mutants if mutant.name in options.names]
    if not options.kafka:
        mutants = [mutant for mutant in mutants if "kafka" not in mutant.needs]
    part = options.part
    if options.rotate:
        part = part_of_day(options.rotate, datetime.now(UTC))
    if part:
        mutants = mutants[part[0] - 1 :: part[1]]
    return mutants


def _as_json(results: list[Result]) -> dict[str, Any]:
    return {
        "mutants": len(results),
        **{verdict.name.lower(): _counts(results)[verdict] for verdict in Verdict},
        "results": [
            {
                "name": result.mutant.name,
                "breaks": result.mutant.breaks,
                "caught_by": result.mutant.caught_by,
                "verdict": result.verdict.name.lower(),
                "detail": result.detail,
                "seconds": round(result.seconds, 1),
            }
            for result in results
        ],
    }


def _counts(results: list[Result]) -> Counter[Verdict]:
    return Counter(result.verdict for result in results)


def show(results: list[Result]) -> None:
    """A table of all, and what it comes to."""
    print(f"\n{'':<14} {'mutant':<44} breaks")
    for result in results:
        print(f"{result.verdict:<14} {result.mutant.name:<44} {'; '.join(result.mutant.breaks)}")
        if result.verdict is not Verdict.CAUGHT:
            print(f"{'':<14} {result.detail}")
    counts = _counts(results)
    text = f"{len(results)} mutants: {counts[Verdict.CAUGHT]} caught"
    text += f", {counts[Verdict.SURVIVED]} survived"
    if counts[Verdict.DOES_NOT_APPLY]:
        text += f", {counts[Verdict.DOES_NOT_APPLY]} do not apply"
    if counts[Verdict.BROKEN]:
        text += f", {counts[Verdict.BROKEN]} with a broken test"
    print(text)


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def environments(
    options: argparse.Namespace,
) -> AbstractContextManager[list[Mapping[str, str]]]:
    """What each of the mutants that run at once finds in its environment."""
    if options.root == ROOT:
        return servers(options.jobs)
    return nullcontext([{} for _ in range(options.jobs)])


def main(given: list[str]) -> int:
    options = arguments(given)
    try:
        mutants = chosen(load(options.patches), options)
    except Unreadable as problem:
        print(problem, file=sys.stderr)
        return 2
    if options.list:
        for mutant in mutants:
            print(f"{mutant.name:<44} {'; '.join(mutant.breaks)}")
            for test_id in mutant.caught_by:
                print(f"{'':<44} {test_id}")
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with environments(options) as each:
        results = Runner(options.root, each, _tell).run(mutants)
    if options.json:
        print(json.dumps(_as_json(results)))
    else:
        show(results)
    return 0 if all(result.verdict is Verdict.CAUGHT for result in results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
