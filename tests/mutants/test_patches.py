"""The patches as files: each applies to the tree at hand and names tests that exist."""

from __future__ import annotations

import ast
import subprocess
from pathlib import Path

import pytest

from tests.mutants.patches import PATCHES, DoesNotApply, Mutant, Unreadable, load, read
from tests.mutants.runner import undefined_names

ROOT = PATCHES.parents[1]
MUTANTS = load()

HEADER = "Breaks: invariant 1\nCaught-by: tests/test_it.py::test_it\n\nBecause.\n\n"
DIFF = "--- a/it.py\n+++ b/it.py\n@@ -1,3 +1,3 @@\n one\n-two\n+TWO\n three\n"


def test_names(path: Path) -> set[str]:
    """The tests of a file as pytest names them, without their parameters."""
    names = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.ClassDef):
            names |= {
                f"{node.name}::{inner.name}"
                for inner in node.body
                if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef)
            }
    return names


test_names.__test__ = False  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def known() -> dict[str, set[str]]:
    paths = {test.partition("::")[0] for mutant in MUTANTS for test in mutant.caught_by}
    return {path: test_names(ROOT / path) for path in paths if (ROOT / path).exists()}


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_it_applies_and_its_tests_exist(mutant: Mutant, known: dict[str, set[str]]) -> None:
    for path, text in mutant.mutated(ROOT).items():
        assert path.startswith("streamapp/"), "what is tested is broken, not its tests"
        assert text != (ROOT / path).read_text()
    for test in mutant.caught_by:
        path, _, name = test.partition("::")
        assert name.partition("[")[0] in known.get(path, ()), f"there is no {test}"
        assert path.startswith("tests/kafka/") == ("kafka" in mutant.needs)


def test_all_are_programs(tmp_path: Path) -> None:
    """A name that is not there would be noticed by any test, and so would show nothing."""
    paths = []
    for mutant in MUTANTS:
        for path, text in mutant.mutated(ROOT).items():
            paths.append(tmp_path / f"{mutant.name}--{path.replace('/', '-')}")
            paths[-1].write_text(text)
    assert undefined_names(paths) == ""


def test_every_invariant_and_every_part_of_the_protocol_is_broken() -> None:
    assert {number for mutant in MUTANTS for number in mutant.invariants()} == set(range(1, 16))
    assert {number for mutant in MUTANTS for number in mutant.rules()} == set(range(1, 13))


# Reading and applying


def write(directory: Path, diff: str = DIFF, header: str = HEADER) -> Mutant:
    path = directory / "it.patch"
    path.write_text(header + diff)
    return read(path)


def mutated(directory: Path, text: str, diff: str = DIFF) -> str:
    (directory / "it.py").write_text(text)
    return write(directory, diff).mutated(directory)["it.py"]


def test_a_patch_is_read(tmp_path: Path) -> None:
    header = HEADER.replace("\n\nBecause", "\nBreaks: protocol 5: letters\nNeeds: kafka\n\nBecause")
    mutant = write(tmp_path, header=header)
    assert mutant.name == "it"
    assert mutant.breaks == ("invariant 1", "protocol 5: letters")
    assert (mutant.invariants(), mutant.rules()) == ({1}, {5})
    assert mutant.caught_by == ("tests/test_it.py::test_it",)
    assert mutant.needs == {"kafka"}
    assert mutant.why == "Because."


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("Breaks: invariant 1\n", "", "missing"),
        ("Caught-by: tests/test_it.py::test_it\n", "", "missing"),
        ("Because.\n", "", "missing"),
        ("invariant 1", "the rules", "what is"),
        ("Because.", "Because.\nNeeds: luck", "nobody provides"),
        ("--- a/it.py", "", "no diff"),
        ("+++ b/it.py", "+++ b/other.py", "neither creates nor renames"),
        ("@@ -1,3 +1,3 @@\n", "", "without a hunk"),
        ("-two\n+TWO\n", "", "changes nothing"),
        (" three", "three", "neither context nor change"),
    ],
)
def test_what_is_no_patch_of_ours_is_told(tmp_path: Path, old: str, new: str, said: str) -> None:
    text = HEADER + DIFF
    assert old in text
    (tmp_path / "it.patch").write_text(text.replace(old, new))
    with pytest.raises(Unreadable, match=rf"it\.patch: .*{said}"):
        read(tmp_path / "it.patch")


def test_a_hunk_is_found_by_its_lines(tmp_path: Path) -> None:
    assert mutated(tmp_path, "zero\nzero\none\ntwo\nthree\nfour\n") == (
        "zero\nzero\none\nTWO\nthree\nfour\n"
    )


def test_context_may_have_changed_up_to_the_nearest_line(tmp_path: Path) -> None:
    diff = DIFF.replace(" one", " far\n one").replace(" three", " three\n off")
    assert mutated(tmp_path, "FAR\none\ntwo\nthree\nOFF\n", diff) == "FAR\none\nTWO\nthree\nOFF\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("one\ntwo\n", "not there"),
        ("ONE\ntwo\nthree\n", "not there"),
        ("one\n2\nthree\n", "not there"),
        ("xone\ntwo\nthree\n", "not there"),
        ("one\ntwo\nthree\none\ntwo\nthree\n", "more than once"),
    ],
)
def test_it_applies_to_one_place_or_not_at_all(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(DoesNotApply, match=said):
        mutated(tmp_path, text)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(DoesNotApply, match="is not there"):
        write(tmp_path).mutated(tmp_path)


def test_a_hunk_may_only_add_or_remove(tmp_path: Path) -> None:
    diff = DIFF.replace("-two\n+TWO\n", "+two\n").replace("-1,3", "-1,2")
    assert mutated(tmp_path, "one\nthree\n", diff) == "one\ntwo\nthree\n"
    diff = DIFF.replace("+TWO\n", "")
    assert mutated(tmp_path, "one\ntwo\nthree\n", diff) == "one\nthree\n"


def test_lines_between_two_changes_of_a_hunk_are_kept(tmp_path: Path) -> None:
    diff = DIFF.replace("+TWO\n", "+TWO\n mid\n-end\n+END\n")
    assert mutated(tmp_path, "one\ntwo\nmid\nend\nthree\n", diff) == "one\nTWO\nmid\nEND\nthree\n"


def test_a_patch_is_one_that_git_applies_too(tmp_path: Path) -> None:
    for mutant in MUTANTS[:1]:
        for path, _ in mutant.changes:
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text((ROOT / path).read_text())
        subprocess.run(
            ["git", "apply", "--recount", "-C1", str(PATCHES / f"{mutant.name}.patch")],
            cwd=tmp_path,
            env={"GIT_CEILING_DIRECTORIES": str(tmp_path.parent), "PATH": "/usr/bin:/bin"},
            check=True,
        )
        assert {p: (tmp_path / p).read_text() for p, _ in mutant.changes} == mutant.mutated(ROOT)
