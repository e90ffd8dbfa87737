"""The command line of ``make bench``."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.contenders.catalogue import CONTENDERS
from benchmarks.messages import SMALLEST, Profile
from benchmarks.scenarios import SCENARIOS

DEFAULT = ("plain", "service")
ALL = "all"  # of those that compare
TABLE_SCENARIOS = ("restore", "lookups")  # of streamapp's deduplication table alone
_QUICK_MESSAGES = 300
_LIGHT_MESSAGES = 400  # of the latency scenario: it lasts as long as they take to come


@dataclass(frozen=True, slots=True)
class Options:
    """What is measured. ``messages`` is the full backlog of a scenario; slow contenders get the
    first part of it. ``contenders`` empty: those that the scenario has. ``keys`` None: as many as
    the scenario of the table has by itself."""

    scenarios: tuple[str, ...] = DEFAULT
    contenders: frozenset[str] = frozenset()
    messages: int = 20_000
    size: int = 600
    leads: int = 1000
    partitions: int = 4
    rounds: int = 3
    keys: int | None = None
    peers: bool = False
    quick: bool = False
    profile: bool = False
    as_json: bool = False

    def base(self, scenario: str) -> Profile:
        """The messages that a scenario begins from."""
        count = self.messages
        if scenario == "latency":
            count = min(count, _LIGHT_MESSAGES)
        return Profile(count=count, leads=self.leads, size=self.size)


def _at_least(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"must be at least {least}")
        return value

    return number


def parse(arguments: Sequence[str] | None = None) -> Options:
    """Read the command line; exits with 2 for wrong use."""
    defaults = Options()
    parser = argparse.ArgumentParser(
        prog="make bench",
        description="Measures streamapp beside other ways to do the same work, on real Kafka and "
        "PostgreSQL. Needs Java 17 and Maven.",
    )
    add = parser.add_argument
    add(
        "--scenario",
        nargs="+",
        default=list(DEFAULT),
        choices=[*SCENARIOS, *TABLE_SCENARIOS, ALL],
        help=f"default: {' '.join(DEFAULT)}",
    )
    add("--contender", nargs="+", default=[], choices=list(CONTENDERS), help="only these")
    add("--messages", type=_at_least(10), default=defaults.messages, help="of the full backlog")
    add("--size", type=_at_least(SMALLEST), default=defaults.size, help="bytes of a message")
    add("--leads", type=_at_least(1), default=defaults.leads)
    add("--partitions", type=_at_least(1), default=defaults.partitions)
    add("--rounds", type=_at_least(1), default=defaults.rounds, help="of all contenders in turn")
    add("--keys", type=_at_least(1000), help=f"in the table, of {' and '.join(TABLE_SCENARIOS)}")
    add("--peers", action="store_true", help="also DBOS, installed into .cache/peers")
    add("--quick", action="store_true", help="one round of few messages: does it run at all?")
    add("--profile", action="store_true", help="also record streamapp with py-spy")
    add("--json", action="store_true", dest="as_json", help="end with one JSON object")
    given = parser.parse_args(arguments)
    quick = given.quick
    names = tuple(SCENARIOS) if ALL in given.scenario else tuple(dict.fromkeys(given.scenario))
    return Options(
        scenarios=names,
        contenders=frozenset(given.contender),
        messages=min(given.messages, _QUICK_MESSAGES) if quick else given.messages,
        size=given.size,
        leads=given.leads,
        partitions=given.partitions,
        rounds=1 if quick else given.rounds,
        keys=given.keys,
        peers=given.peers or "dbos" in given.contender,
        quick=quick,
        profile=given.profile,
        as_json=given.as_json,
    )
