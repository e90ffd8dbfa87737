"""From results to tables: text for the terminal, Markdown and JSON for the files."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.contenders.catalogue import CONTENDERS
from benchmarks.figures import FigureReport
from benchmarks.measuring import Result
from benchmarks.scenarios import Ratio, Row, Scenario
from benchmarks.statistics import Spread


@dataclass(slots=True)
class ScenarioReport:
    """All rounds of a scenario. A row counts only the runs whose end state was right."""

    scenario: Scenario
    results: dict[Row, list[Result]] = field(default_factory=lambda: defaultdict(list))

    @property
    def problems(self) -> list[str]:
        """Every problem of every run, named."""
        return [
            f"{self.scenario.name}, {label(row)}, round {number}: {problem}"
            for row, rounds in self.results.items()
            for number, result in enumerate(rounds, 1)
            for problem in result.problems
        ]

    def spread(self, row: Row, figure: str) -> Spread | None:
        """Of the runs that were right; None where none has the figure."""
        values = [value for value in self._values(row, figure) if value is not None]
        return Spread.of(values) if values else None

    def ratio(self, ratio: Ratio) -> Spread | None:
        """Round by round, so that what slowed a whole round down is not in it."""
        pairs = zip(
            self._values(ratio.of, ratio.figure),
            self._values(ratio.over, ratio.figure),
            strict=False,
        )
        values = [of / over for of, over in pairs if of is not None and over]
        return Spread.of(values) if values else None

    def _values(self, row: Row, figure: str) -> list[float | None]:
        return [
            None if result.problems else getattr(result, figure)
            for result in self.results.get(row, [])
        ]

    def cells(self) -> tuple[list[str], list[list[str]]]:
        """Titles and rows of the table."""
        light = self.scenario.light
        titles = ["contender", "records"]
        titles += ["p50 ms", "p99 ms"] if light else ["records/s", "CPU s per 1,000"]
        rows = []
        for row, results in self.results.items():
            wrong = sum(bool(result.problems) for result in results)
            cells = [label(row), f"{results[-1].records:,}"]
            if wrong == len(results):
                cells += ["no result: wrong end state", ""]
            elif light:
                cells += [self._shown(row, "p50", 1000, 1), self._shown(row, "p99", 1000, 1)]
            else:
                cells += [self._shown(row, "rate", 1, 0), self._shown(row, "cpu", 1, 3)]
            if 0 < wrong < len(results):
                cells[0] += f" ({wrong} of {len(results)} rounds without result)"
            rows.append(cells)
        return titles, rows

    def _shown(self, row: Row, figure: str, scale: float, digits: int) -> str:
        spread = self.spread(row, figure)
        if spread is None:
            return ""
        scaled = Spread(spread.median * scale, spread.least * scale, spread.most * scale)
        return scaled.shown(digits)

    def ratio_lines(self) -> list[str]:
        lines = []
        for ratio in self.scenario.all_ratios():
            spread = self.ratio(ratio)
            if spread is not None:
                what = {"rate": "records/s", "cpu": "CPU per record", "p99": "p99"}[ratio.figure]
                lines.append(f"{label(ratio.of)} / {label(ratio.over)}: {what} {spread.shown(2)}")
        return lines

    def as_json(self) -> dict[str, Any]:
        return {
            "scenario": self.scenario.name,
            "about": self.scenario.about,
            "rows": [
                {
                    "contender": row.contender,
                    "variant": row.variant,
                    **{
                        figure: asdict(spread) if (spread := self.spread(row, figure)) else None
                        for figure in ("rate", "cpu", "p50", "p99")
                    },
                    "rounds": [asdict(result) for result in results],
                }
                for row, results in self.results.items()
            ],
            "ratios": [
                {
                    "of": asdict(ratio.of),
                    "over": asdict(ratio.over),
                    "figure": ratio.figure,
                    **asdict(spread),
                }
                for ratio in self.scenario.all_ratios()
                if (spread := self.ratio(ratio)) is not None
            ],
        }


def label(row: Row) -> str:
    title = CONTENDERS[row.contender].title
    return f"{title} [{row.variant}]" if row.variant else title


def as_text(report: ScenarioReport | FigureReport) -> list[str]:
    titles, rows = report.cells()
    table = [titles, *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(titles))]
    lines = [f"== {report.scenario.name}: {report.scenario.about}"]
    lines += [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    ]
    return [*lines, "", *report.ratio_lines(), *_wrong(report)]


def as_markdown(facts: Mapping[str, Any], reports: Sequence[ScenarioReport | FigureReport]) -> str:
    lines = ["# Benchmark", "", *(f"- {name}: {value}" for name, value in facts.items()), ""]
    for report in reports:
        titles, rows = report.cells()
        lines += [f"## {report.scenario.name}", "", report.scenario.about, ""]
        lines += [_line(titles), _line(["---"] * len(titles)), *(_line(row) for row in rows), ""]
        lines += [f"- {line}" for line in (*report.ratio_lines(), *_wrong(report))]
        lines.append("")
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _wrong(report: ScenarioReport | FigureReport) -> list[str]:
    return [f"WRONG: {problem}" for problem in report.problems]
