"""What the documents refer to is there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def promises() -> list[list[str]]:
    """The cells of the table of promises."""
    text = (ROOT / "docs" / "guarantees.md").read_text()
    rows = [line for line in text.splitlines() if re.match(r"\| \d+ \|", line)]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def test_every_promise_names_its_code_its_tests_and_its_mutations() -> None:
    rows = promises()
    assert [int(row[0]) for row in rows] == list(range(1, 16))
    for number, _, kept_by, shown_by, broken_by in rows:
        for path in re.findall(r"`([^`]+\.py)`", kept_by):
            assert (ROOT / "streamapp" / path).is_file(), (number, path)
        folder = ROOT
        tests = re.findall(r"`((?:tests/)?[\w/]+(?:\.py)?)`", shown_by)
        assert tests, number
        for path in tests:
            folder = (ROOT / path).parent if path.startswith("tests/") else folder
            place = ROOT / path if path.startswith("tests/") else folder / path
            assert place.exists(), (number, path)
        mutations = broken_by.split(", ")
        assert mutations, number
        for name in mutations:
            assert (ROOT / "tests" / "mutants" / f"{name}.patch").is_file(), (number, name)


def test_links_lead_somewhere() -> None:
    for document in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
            assert (document.parent / target).exists(), (document.name, target)
