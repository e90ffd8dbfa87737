"""The runner, on a tree of a few lines: only a named test that fails has caught a mutant."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.mutants.__main__ import arguments, chosen, main, part_of_day
from tests.mutants.patches import PATCHES, Unreadable, load
from tests.mutants.runner import Case, Outcome, Verdict, judge

SUMS = """\
ZERO = 0


def add(a: int, b: int) -> int:
    result = a + b
    return result


def wait() -> None:
    return
"""

TESTS = """\
import pytest

from streamapp import sums


@pytest.fixture
def made():
    assert sums.add(1, 0) == 1


@pytest.mark.parametrize("number", [0, 1])
def test_add(number):
    assert sums.add(number, 1) == number + 1


def test_zero():
    assert sums.add(0, 0) == 0


def test_with_a_fixture(made):
    assert sums.add(2, 2) == 4


def test_that_fails_anyhow():
    assert False


def test_that_is_skipped():
    pytest.skip("not here")


def test_wait():
    sums.wait()
"""


class Tree:
    """A project of one module and one file of tests, and mutants of it."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "tree"
        self.patches = directory / "patches"
        for path, text in {
            "streamapp/__init__.py": "",
            "streamapp/sums.py": SUMS,
            "tests/__init__.py": "",
            "tests/test_sums.py": TESTS,
            ".gitignore": "var/\n",
            "pyproject.toml": "",
            "var/large": "is not copied",
        }.items():
            (self.root / path).parent.mkdir(parents=True, exist_ok=True)
            (self.root / path).write_text(text)
        self.patches.mkdir()

    def mutant(
        self,
        name: str,
        *caught_by: str,
        old: str = "    result = a + b\n",
        new: str = "    result = a + b + 1\n",
        before: str = "def add(a: int, b: int) -> int:\n",
        after: str = "    return result\n",
    ) -> None:
        names = [f"Caught-by: tests/test_sums.py::{test}\n" for test in caught_by or ("test_add",)]
        lines = [
            "Breaks: invariant 1\n",
            *names,
            "Because.\n",
            "--- a/streamapp/sums.py\n",
            "+++ b/streamapp/sums.py\n",
            "@@ -1 +1 @@\n",
            f" {before}",
            *(f"-{line}" for line in old.splitlines(keepends=True)),
            *(f"+{line}" for line in new.splitlines(keepends=True)),
            f" {after}",
        ]
        (self.patches / f"{name}.patch").write_text("".join(lines))

    def run(self, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, dict[str, Any]]:
        """Exit code and verdicts with their details."""
        code = main(["--json", "--root", str(self.root), "--patches", str(self.patches), *more])
        answer = json.loads(capsys.readouterr().out)
        return code, {
            result["name"]: (result["verdict"], result["detail"]) for result in answer["results"]
        }


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    # Its tests need no plugin but one, and are so begun in half the time.
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p pytest_timeout")
    return Tree(tmp_path)


def test_verdicts(tree: Tree, capsys: pytest.CaptureFixture[str]) -> None:
    tree.mutant("caught")
    tree.mutant("caught-by-one-parameter", "test_add[1]", new="    result = a + b + a\n")
    tree.mutant("survives", new="    result = b + a\n")
    tree.mutant("one-of-two-survives", "test_zero", "test_add", new="    result = a + b or 1\n")
    tree.mutant("no-such-lines", old="    result = a * b\n")
    tree.mutant(
        "breaks-the-import",
        before="\n",
        old="def add(a: int, b: int) -> int:\n",
        new="import nowhere_at_all\n\n\ndef add(a: int, b: int) -> int:\n",
        after="    result = a + b\n",
    )
    tree.mutant("breaks-the-syntax", new="    result = (a + b\n")
    tree.mutant("no-such-name", new="    result = a + c\n")
    tree.mutant("import-within", new="    import nowhere_at_all as n\n    result = a + n.b\n")
    tree.mutant("fixture-fails", "test_with_a_fixture")
    tree.mutant("no-such-test", "test_that_is_not_there")
    tree.mutant("fails-without-it", "test_that_fails_anyhow")
    tree.mutant("skipped", "test_that_is_skipped")
    code, found = tree.run(capsys)
    assert code == 1
    assert {name: verdict for name, (verdict, _) in found.items()} == {
        "breaks-the-import": "broken",
        "breaks-the-syntax": "broken",
        "caught": "caught",
        "caught-by-one-parameter": "caught",
        "fails-without-it": "broken",
        "fixture-fails": "broken",
        "import-within": "broken",
        "no-such-lines": "does_not_apply",
        "no-such-name": "broken",
        "no-such-test": "broken",
        "one-of-two-survives": "survived",
        "skipped": "broken",
        "survives": "survived",
    }
    details = {name: detail for name, (_, detail) in found.items()}
    assert "assert 2 == (0 + 1)" in details["caught"]
    assert details["survives"] == "tests/test_sums.py::test_add passes"
    assert details["one-of-two-survives"] == "tests/test_sums.py::test_add passes"
    assert "not there" in details["no-such-lines"]
    assert "nowhere_at_all" in details["breaks-the-import"]
    assert "Undefined name `c`" in details["no-such-name"]
    assert "without the mutant" in details["fails-without-it"]


def test_all_caught_is_success_and_what_is_broken_is_whole_again(
    tree: Tree, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three on one copy: each would be caught by what the one before it left."""
    tree.mutant("a")
    tree.mutant("b", new="    result = a + b + 2\n")
    tree.mutant("c", new="    result = a + b + 3\n")
    code, found = tree.run(capsys, "--jobs", "1")
    assert (code, [verdict for verdict, _ in found.values()]) == (0, ["caught"] * 3)
    tree.mutant("d", new="    result = b + a\n")
    code, found = tree.run(capsys, "--jobs", "1")
    assert (code, found["d"][0]) == (1, "survived")
    assert (tree.root / "streamapp/sums.py").read_text() == SUMS
    assert not (tree.root / "tests/__pycache__").exists(), "nothing runs in the tree itself"


def test_a_test_that_hangs_has_noticed(
    tree: Tree, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.mutants.runner.Copy.run.__defaults__", (2,))
    tree.mutant(
        "hangs",
        "test_wait",
        before="def wait() -> None:\n",
        old="    return\n",
        new="    while True:\n        pass\n",
        after="",
    )
    code, found = tree.run(capsys)
    assert (code, found["hangs"][0]) == (0, "caught")
    assert "Timeout" in found["hangs"][1]


def test_the_table_says_what_it_comes_to(tree: Tree, capsys: pytest.CaptureFixture[str]) -> None:
    tree.mutant("a")
    tree.mutant("b", new="    result = b + a\n")
    assert main(["--root", str(tree.root), "--patches", str(tree.patches)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "2 mutants: 1 caught, 1 survived"
    assert any(line.split() == ["SURVIVED", "b", "invariant", "1"] for line in lines)


def test_a_run_of_pytest_that_ends_early_catches_nothing() -> None:
    failed = Case("tests.test_it", "test_it", "failed", "assert 1 == 2")
    assert judge(["tests/test_it.py::test_it"], Outcome([failed]))[0] is Verdict.CAUGHT
    assert judge(["tests/test_it.py::test_it"], Outcome([failed], "killed"))[0] is Verdict.BROKEN


# Choosing


def names(*given: str) -> list[str]:
    return [mutant.name for mutant in chosen(load(), arguments(list(given)))]


def test_the_parts_are_all_of_them_and_none_twice() -> None:
    parts = [names("--part", f"{number}/4") for number in range(1, 5)]
    assert sorted(name for part in parts for name in part) == names()
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_each_part_has_its_day() -> None:
    days = [datetime(2026, 12, 30, tzinfo=UTC).replace(day=day) for day in range(1, 31)]
    turns = [part_of_day(4, day) for day in days]
    assert {turns[n][0] for n in range(4)} == {1, 2, 3, 4}
    assert turns[:4] == turns[4:8]
    assert names("--rotate", "4") in [names("--part", f"{number}/4") for number in range(1, 5)]


def test_by_name() -> None:
    first, second = names()[:2]
    assert names(second, first) == [first, second]
    with pytest.raises(Unreadable, match="no-such-mutant"):
        names("no-such-mutant")


def test_what_needs_kafka_is_run_only_with_it() -> None:
    needy = [mutant.name for mutant in load() if "kafka" in mutant.needs]
    assert set(names("--kafka")) == set(names()) | set(needy)
    assert not set(names()) & set(needy)


@pytest.mark.parametrize("given", [["--part", "5/4"], ["--part", "x"], ["--rotate", "0"]])
def test_wrong_use(given: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        arguments(given)
    assert ended.value.code == 2


def test_a_list_runs_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list", "--patches", str(PATCHES)]) == 0
    assert "ledger-jumps-a-gap-of-one" in capsys.readouterr().out
    assert main(["no-such-mutant"]) == 2
