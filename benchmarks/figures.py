"""Scenarios of the deduplication table: figures of streamapp alone, with nothing beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class About:
    name: str
    about: str


@dataclass
class FigureReport:
    """One line for each case of each round: figures by title, in the order of their columns."""

    scenario: About
    lines: list[tuple[str, Mapping[str, float]]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def cells(self) -> tuple[list[str], list[list[str]]]:
        """Titles, and the rows below them."""
        titles = ["case", *(self.lines[0][1] if self.lines else ())]
        rows = [
            [case, *(f"{value:,.1f}" for value in figures.values())] for case, figures in self.lines
        ]
        return titles, rows

    def ratio_lines(self) -> list[str]:
        """There is nothing to compare with."""
        return []

    def as_json(self) -> dict[str, Any]:
        return {
            "scenario": self.scenario.name,
            "about": self.scenario.about,
            "rows": [{"case": case, **figures} for case, figures in self.lines],
            "problems": self.problems,
        }
