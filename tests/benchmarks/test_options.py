"""The command line of the benchmark."""

from __future__ import annotations

import pytest

from benchmarks.contenders.catalogue import CONTENDERS
from benchmarks.messages import Profile
from benchmarks.options import Options, parse
from benchmarks.scenarios import SCENARIOS


def test_without_arguments_the_defaults_hold() -> None:
    assert parse([]) == Options()


def test_every_option_is_heard() -> None:
    arguments = (
        "--scenario latency plain --contender streamapp bare --messages 500 --size 5000 "
        "--leads 10 --partitions 8 --rounds 2 --keys 5000 --peers --profile --json"
    )
    given = parse(arguments.split())
    assert given == Options(
        scenarios=("latency", "plain"),
        contenders=frozenset({"streamapp", "bare"}),
        messages=500,
        size=5000,
        leads=10,
        partitions=8,
        rounds=2,
        keys=5000,
        peers=True,
        profile=True,
        as_json=True,
    )


def test_all_means_every_scenario() -> None:
    assert parse(["--scenario", "all"]).scenarios == tuple(SCENARIOS)


def test_a_peer_that_is_named_is_installed() -> None:
    assert parse(["--contender", "dbos"]).peers
    assert not parse(["--contender", "bare"]).peers


def test_quick_is_one_round_of_few_messages() -> None:
    quick = parse(["--quick", "--messages", "100000", "--rounds", "9"])
    assert (quick.rounds, quick.quick) == (1, True)
    assert quick.messages <= 500
    assert parse(["--quick", "--messages", "50"]).messages == 50


@pytest.mark.parametrize(
    "wrong",
    [
        ["--scenario", "unknown"],
        ["--contender", "unknown"],
        ["--messages", "0"],
        ["--size", "10"],
        ["--rounds", "none"],
    ],
)
def test_wrong_use_ends_with_2(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        parse(wrong)
    assert exit_.value.code == 2
    assert wrong[0] in capsys.readouterr().err


def test_latency_is_measured_on_few_messages() -> None:
    options = Options(messages=20_000)
    assert options.base("latency").count < options.base("plain").count == 20_000


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_scenario_fits_together(name: str) -> None:
    scenario = SCENARIOS[name](Profile(1000))
    assert scenario.name == name
    assert len(set(scenario.rows)) == len(scenario.rows)
    for row in scenario.rows:
        assert row.contender in CONTENDERS
        assert row.variant in scenario.variants
    for ratio in scenario.all_ratios():
        assert {ratio.of, ratio.over} <= set(scenario.rows)
        assert ratio.of != ratio.over
    assert scenario.all_ratios()
