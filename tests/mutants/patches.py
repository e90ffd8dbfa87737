"""Mutants as files: a header that says what a patch breaks and who notices, then a unified diff.

A hunk is found by its lines, not by its line numbers, so that a patch survives edits elsewhere in
its file; where they occur twice, or no more, it does not apply.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PATCHES = Path(__file__).parent
FEWEST_CONTEXT = 1  # lines on each side that a hunk may shrink to
NEEDS = frozenset({"kafka"})

_FIELD = re.compile(r"(Breaks|Caught-by|Needs): *(.*\S)")
_BREAKS = re.compile(r"invariant (\d+)\b|protocol (\d+): \S|breaker: \S|design: \S")


class Unreadable(Exception):
    """A file that is no patch in our form; the message says why."""


class DoesNotApply(Exception):
    """The lines that a patch changes are not there, or are there twice."""


@dataclass(frozen=True, slots=True)
class Hunk:
    """Lines to be replaced, with what surrounds them; all with their line ends."""

    before: tuple[str, ...]
    old: tuple[str, ...]
    new: tuple[str, ...]
    after: tuple[str, ...]

    def apply(self, text: str) -> str:
        """Raises ``DoesNotApply``."""
        most = max(len(self.before), len(self.after), FEWEST_CONTEXT)
        for context in range(most, FEWEST_CONTEXT - 1, -1):
            head = "".join(self.before[max(0, len(self.before) - context) :])
            tail = "".join(self.after[:context])
            sought = head + "".join(self.old) + tail
            places = list(_lines_at(text, sought))
            if len(places) > 1:
                raise DoesNotApply("the lines occur more than once")
            if places:
                at = places[0]
                return text[:at] + head + "".join(self.new) + tail + text[at + len(sought) :]
        raise DoesNotApply("the lines are not there")


def _lines_at(text: str, sought: str) -> Iterator[int]:
    at = text.find(sought)
    while at >= 0:
        if at == 0 or text[at - 1] == "\n":
            yield at
        at = text.find(sought, at + 1)


@dataclass(frozen=True, slots=True)
class Mutant:
    """One way to break the code.

    ``breaks`` names invariants ("invariant 3") and rules ("protocol 2: ..."), ``caught_by`` the
    pytest ids of which each has to fail, ``needs`` what has to be there to run them.
    """

    name: str
    breaks: tuple[str, ...]
    caught_by: tuple[str, ...]
    needs: frozenset[str]
    why: str
    changes: tuple[tuple[str, tuple[Hunk, ...]], ...]

    def mutated(self, tree: Path) -> dict[str, str]:
        """The new text of each file that it changes, by path. Raises ``DoesNotApply``."""
        texts = {}
        for path, hunks in self.changes:
            try:
                text = (tree / path).read_text()
            except FileNotFoundError:
                raise DoesNotApply(f"{path} is not there") from None
            for hunk in hunks:
                try:
                    text = hunk.apply(text)
                except DoesNotApply as problem:
                    raise DoesNotApply(f"{path}: {problem}") from None
            texts[path] = text
        return texts

    def invariants(self) -> set[int]:
        return {
            int(found[1]) for text in self.breaks if (found := _BREAKS.match(text)) and found[1]
        }

    def rules(self) -> set[int]:
        """The sections of the protocol of which it breaks a rule."""
        return {
            int(found[2]) for text in self.breaks if (found := _BREAKS.match(text)) and found[2]
        }


def load(directory: Path = PATCHES) -> list[Mutant]:
    """All mutants, by name. Raises ``Unreadable``."""
    return [read(path) for path in sorted(directory.glob("*.patch"))]


def read(path: Path) -> Mutant:
    """The mutant in a file. Raises ``Unreadable``."""
    try:
        return _parse(path.stem, path.read_text())
    except Unreadable as problem:
        raise Unreadable(f"{path.name}: {problem}") from None


def _parse(name: str, text: str) -> Mutant:
    lines = text.splitlines(keepends=True)
    start = next((n for n, line in enumerate(lines) if line.startswith("--- ")), None)
    if start is None:
        raise Unreadable("no diff")
    fields: dict[str, list[str]] = {"Breaks": [], "Caught-by": [], "Needs": []}
    why = []
    for line in lines[:start]:
        if found := _FIELD.fullmatch(line.rstrip("\n")):
            fields[found[1]].append(found[2])
        else:
            why.append(line.strip())
    said = " ".join(filter(None, why))
    for text in fields["Breaks"]:
        if not _BREAKS.match(text):
            raise Unreadable(f"what is {text!r}?")
    if not fields["Breaks"] or not fields["Caught-by"] or not said:
        raise Unreadable("Breaks, Caught-by or the sentence that says why is missing")
    needs = frozenset(fields["Needs"])
    if needs - NEEDS:
        raise Unreadable(f"needs {', '.join(sorted(needs - NEEDS))}, which nobody provides")
    return Mutant(
        name,
        tuple(fields["Breaks"]),
        tuple(fields["Caught-by"]),
        needs,
        said,
        tuple(_files(lines[start:])),
    )


def _files(lines: list[str]) -> Iterator[tuple[str, tuple[Hunk, ...]]]:
    starts = [n for n, line in enumerate(lines) if line.startswith("--- a/")]
    for begin, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        path = lines[begin].removeprefix("--- a/").split("\t")[0].strip()
        if lines[begin + 1].split("\t")[0].strip() != f"+++ b/{path}":
            raise Unreadable("a patch neither creates nor renames files")
        yield path, tuple(_hunks(lines[begin + 2 : end]))


def _hunks(lines: list[str]) -> Iterator[Hunk]:
    starts = [n for n, line in enumerate(lines) if line.startswith("@@ ")]
    if not starts:
        raise Unreadable("a file without a hunk")
    for begin, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        yield _hunk([line for line in lines[begin + 1 : end] if line != "\n"])


def _hunk(lines: list[str]) -> Hunk:
    """Context within the change belongs to both of its sides."""
    if any(line[0] not in " +-" for line in lines):
        raise Unreadable("a line of a hunk that is neither context nor change")
    changed = [n for n, line in enumerate(lines) if line[0] != " "]
    if not changed:
        raise Unreadable("a hunk that changes nothing")
    first, last = changed[0], changed[-1] + 1
    within = lines[first:last]
    return Hunk(
        before=tuple(line[1:] for line in lines[:first]),
        old=tuple(line[1:] for line in within if line[0] != "+"),
        new=tuple(line[1:] for line in within if line[0] != "-"),
        after=tuple(line[1:] for line in lines[last:]),
    )
