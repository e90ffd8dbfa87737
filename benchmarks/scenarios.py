"""What is measured: which messages, which order service, which contenders, which ratios."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from benchmarks.messages import Profile

SERVICE_DELAY = 0.05  # seconds that the order service takes in the scenarios with a service
SLOW_SECONDS = 5.0
LIGHT_LOAD = 20.0  # messages a second
WARM_UP = 20  # messages before the latency is measured

Figure = Literal["rate", "cpu", "p99"]
ALL = ("bare", "table", "one-at-a-time", "days-work", "dbos", "streamapp")
WORKING = ("one-at-a-time", "days-work", "dbos", "streamapp")


@dataclass(frozen=True, slots=True)
class Row:
    """A contender on one of the variants of a scenario."""

    contender: str
    variant: str = ""


@dataclass(frozen=True, slots=True)
class Variant:
    """``delay``: seconds that the order service takes; None: there is no order service."""

    profile: Profile
    delay: float | None = None


@dataclass(frozen=True, slots=True)
class Ratio:
    """``figure`` of one row over that of another, round by round."""

    of: Row
    over: Row
    figure: Figure = "rate"


@dataclass(frozen=True, slots=True)
class Scenario:
    """``until``: share of the outcomes up to which the time is taken. ``beyond_unique``: the time
    is taken once all different messages are done. ``light``: messages come at ``LIGHT_LOAD`` and
    their latency is measured, instead of a backlog. ``ratios`` None: streamapp over each other."""

    name: str
    about: str
    variants: Mapping[str, Variant]
    rows: tuple[Row, ...]
    until: float = 1.0
    beyond_unique: bool = False
    light: bool = False
    ratios: tuple[Ratio, ...] | None = None

    def all_ratios(self) -> tuple[Ratio, ...]:
        if self.ratios is not None:
            return self.ratios
        return tuple(
            Ratio(Row("streamapp", row.variant), row, "p99" if self.light else "rate")
            for row in self.rows
            if row.contender != "streamapp"
        )


def _on_both(names: Iterable[str], variants: Iterable[str]) -> tuple[Row, ...]:
    return tuple(Row(name, variant) for name in names for variant in variants)


def _what_it_costs(name: str, about: str, variants: Mapping[str, Variant]) -> Scenario:
    """The usual messages (the first variant) and special ones (the second), for both systems that
    work on many messages at a time."""
    names = ("days-work", "streamapp")
    usual, special = variants
    return Scenario(
        name,
        about,
        variants,
        _on_both(names, variants),
        ratios=(
            *(Ratio(Row(each, special), Row(each, usual)) for each in names),
            Ratio(Row("streamapp", special), Row("days-work", special)),
        ),
    )


def plain(base: Profile) -> Scenario:
    return Scenario(
        "plain",
        "No external wait: three steps in the own database.",
        {"": Variant(base)},
        tuple(Row(name) for name in ALL),
    )


def service(base: Profile) -> Scenario:
    return Scenario(
        "service",
        f"The order service takes {SERVICE_DELAY * 1000:.0f} ms.",
        {"": Variant(base, SERVICE_DELAY)},
        tuple(Row(name) for name in WORKING),
    )


def slow_leads(base: Profile) -> Scenario:
    variants = {
        "none slow": Variant(base, 0.0),
        "1 % slow": Variant(replace(base, slow=0.01, slow_seconds=SLOW_SECONDS), 0.0),
    }
    names = ("days-work", "streamapp")
    return Scenario(
        "slow-leads",
        f"The order service takes {SLOW_SECONDS:g} s for 1 % of the messages, and no time for the "
        "others; up to 95 % of the outcomes, as the last ones wait for nothing else.",
        variants,
        _on_both(names, variants),
        until=0.95,
        ratios=tuple(Ratio(Row(name, "1 % slow"), Row(name, "none slow")) for name in names),
    )


def duplicates(base: Profile) -> Scenario:
    few = max(base.count // 20, 1)
    return Scenario(
        "duplicates",
        "All of it repeats messages that were processed before; the rate of committed offsets, "
        "once all different messages are done.",
        {"": Variant(replace(base, only_repeats=few))},
        (Row("bare"), Row("streamapp-acknowledged")),
        beyond_unique=True,
        ratios=(Ratio(Row("streamapp-acknowledged"), Row("bare")),),
    )


def some_duplicates(base: Profile) -> Scenario:
    return _what_it_costs(
        "some-duplicates",
        "10 % of the messages repeat one shortly before; all records a second, repeated ones too.",
        {"none": Variant(base), "10 %": Variant(replace(base, repeats=0.1))},
    )


def failures(base: Profile) -> Scenario:
    return _what_it_costs(
        "failures",
        "The order service refuses 1 % of the orders: they are undone and dead-lettered.",
        {"none": Variant(base, 0.0), "1 %": Variant(replace(base, rejected=0.01), 0.0)},
    )


def bad_input(base: Profile) -> Scenario:
    variants = {"good": Variant(base), "bad": Variant(replace(base, invalid=1.0))}
    name = "streamapp-acknowledged"
    return Scenario(
        "bad-input",
        "All of it is invalid and becomes dead letters; the rate of committed offsets.",
        variants,
        tuple(Row(name, variant) for variant in variants),
        ratios=(Ratio(Row(name, "bad"), Row(name, "good")),),
    )


def hot_lead(base: Profile) -> Scenario:
    return _what_it_costs(
        "hot-lead",
        "One lead has half of the messages, which are done one after the other.",
        {"even": Variant(base), "hot": Variant(replace(base, hot=0.5))},
    )


def latency(base: Profile) -> Scenario:
    return Scenario(
        "latency",
        f"{LIGHT_LOAD:g} messages a second: from the record's timestamp to the commit that ends "
        "its message.",
        {"": Variant(base)},
        tuple(Row(name) for name in ("one-at-a-time", "days-work", "streamapp")),
        light=True,
    )


def metrics(base: Profile) -> Scenario:
    with_, without = Row("streamapp"), Row("streamapp-without-metrics")
    return Scenario(
        "metrics",
        "What counting costs: CPU seconds of the worker with metrics over those without.",
        {"": Variant(base)},
        (with_, without),
        ratios=(Ratio(with_, without, "cpu"), Ratio(with_, without)),
    )


SCENARIOS: Mapping[str, Callable[[Profile], Scenario]] = {
    "plain": plain,
    "service": service,
    "slow-leads": slow_leads,
    "duplicates": duplicates,
    "some-duplicates": some_duplicates,
    "failures": failures,
    "bad-input": bad_input,
    "hot-lead": hot_lead,
    "latency": latency,
    "metrics": metrics,
}
