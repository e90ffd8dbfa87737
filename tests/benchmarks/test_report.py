"""Tables: what counts, what does not."""

from __future__ import annotations

import json

import pytest

from benchmarks.measuring import Result
from benchmarks.messages import Profile
from benchmarks.report import ScenarioReport, as_markdown, as_text
from benchmarks.scenarios import SCENARIOS, Ratio, Row
from benchmarks.statistics import Spread

OURS, OTHER = Row("streamapp"), Row("days-work")


def report(name: str = "plain") -> ScenarioReport:
    return ScenarioReport(SCENARIOS[name](Profile(1000)))


def result(rate: float | None = None, cpu: float | None = None, *problems: str) -> Result:
    return Result(1000, list(problems), rate=rate, cpu=cpu)


def test_ratios_are_taken_round_by_round() -> None:
    made = report()
    made.results[OURS] = [result(100.0, 1.0), result(400.0, 1.0), result(30.0, 1.0)]
    made.results[OTHER] = [result(50.0, 1.0), result(100.0, 1.0), result(10.0, 1.0)]
    assert made.ratio(Ratio(OURS, OTHER)) == Spread(3.0, 2.0, 4.0)


def test_a_run_with_a_wrong_end_state_is_no_result() -> None:
    made = report()
    made.results[OURS] = [result(9999.0, 0.1, "orders: 3 instead of 4"), result(100.0, 1.0)]
    made.results[OTHER] = [result(50.0, 1.0), result(50.0, 1.0)]
    assert made.spread(OURS, "rate") == Spread(100.0, 100.0, 100.0)
    assert made.ratio(Ratio(OURS, OTHER)) == Spread(2.0, 2.0, 2.0)
    text = "\n".join(as_text(made))
    assert "9,999" not in text
    assert "1 of 2 rounds without result" in text
    assert "WRONG: plain, streamapp, round 1: orders: 3 instead of 4" in text


def test_a_row_without_any_right_run_says_so_and_has_no_ratio() -> None:
    made = report()
    made.results[OURS] = [result(9999.0, 0.1, "orders: 3 instead of 4")]
    made.results[OTHER] = [result(50.0, 1.0)]
    assert made.spread(OURS, "rate") is None
    assert made.ratio(Ratio(OURS, OTHER)) is None
    markdown = as_markdown({}, [made])
    assert "no result: wrong end state" in markdown
    assert "9,999" not in markdown
    assert made.problems


def test_the_table_shows_median_and_range() -> None:
    made = report()
    made.results[OURS] = [result(1000.0, 0.25), result(3000.0, 0.5), result(2000.0, 0.75)]
    titles, (cells,) = made.cells()
    assert titles == ["contender", "records", "records/s", "CPU s per 1,000"]
    assert cells == ["streamapp", "1,000", "2,000 (1,000-3,000)", "0.500 (0.250-0.750)"]


def test_latency_is_shown_in_milliseconds() -> None:
    made = report("latency")
    made.results[OURS] = [Result(400, p50=0.010, p99=0.0254)]
    made.results[OTHER] = [Result(400, p50=0.010, p99=0.0127)]
    titles, (cells, _) = made.cells()
    assert titles[2:] == ["p50 ms", "p99 ms"]
    assert cells[2:] == ["10.0", "25.4"]
    (line,) = made.ratio_lines()
    assert line.endswith("p99 2.00")


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_scenario_can_be_reported(name: str) -> None:
    made = report(name)
    for row in made.scenario.rows:
        made.results[row] = [Result(100, rate=10.0, cpu=1.0, p50=0.1, p99=0.2)]
    assert len(made.ratio_lines()) == len(made.scenario.all_ratios())
    assert as_text(made)
    assert f"## {name}" in as_markdown({"processors": 2}, [made])
    again = json.loads(json.dumps(made.as_json()))
    assert len(again["rows"]) == len(made.scenario.rows)
