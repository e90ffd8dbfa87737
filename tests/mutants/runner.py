"""Applies mutants one by one to copies of the tree and runs just the tests that they name.

A mutant is caught when each test that it names fails while it runs. A test that cannot be
collected or set up, or that fails for a name that is not there, shows nothing of the invariant:
such a mutant is no program that anybody would have deployed, and is reported as broken.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from importlib.util import cache_from_source
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryDirectory
from xml.etree import ElementTree

from tests.mutants.patches import DoesNotApply, Mutant

TEST_TIMEOUT = 60  # seconds; a named test that hangs has failed by then
START_MARGIN = 120.0  # seconds that a run may take besides its tests
PACKAGE = "streamapp"

# A failure by one of these tells that the patch is no program, not that its test is good.
_NO_PROGRAM = (
    "ImportError",
    "ModuleNotFoundError",
    "SyntaxError",
    "NameError",
    "UnboundLocalError",
)


class Verdict(StrEnum):
    """What became of a mutant."""

    CAUGHT = "caught"
    SURVIVED = "SURVIVED"
    DOES_NOT_APPLY = "does not apply"
    BROKEN = "test broken"


@dataclass(frozen=True, slots=True)
class Result:
    """A mutant's verdict; ``detail`` says how it was caught, or why not."""

    mutant: Mutant
    verdict: Verdict
    detail: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Case:
    """One test as it ended: ``state`` is passed, failed, error or skipped."""

    path: str  # dotted, with its classes
    name: str  # with its parameters
    state: str
    message: str


@dataclass(slots=True)
class Outcome:
    """One run of pytest."""

    cases: list[Case] = field(default_factory=list)
    problem: str = ""  # why there may be fewer cases than tests

    def of(self, test_id: str) -> list[Case]:
        """The cases of one test, or of its one parameter set."""
        path, *names = test_id.split("::")
        dotted = ".".join([path.removesuffix(".py").replace("/", "."), *names[:-1]])
        return [
            case
            for case in self.cases
            if case.path == dotted
            and (case.name == names[-1] or case.name.startswith(names[-1] + "["))
        ]


class Copy:
    """A copy of the tree that is imported instead of the original; ``more`` is added to the
    environment of its tests."""

    def __init__(self, root: Path, target: Path, more: Mapping[str, str]) -> None:
        self.root = target
        self._more = more
        self._process: subprocess.Popen[str] | None = None
        patterns = (root / ".gitignore").read_text().split()
        ignored = shutil.ignore_patterns(".git", *(pattern.rstrip("/") for pattern in patterns))
        shutil.copytree(root, target, ignore=ignored)

    def environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(self.root), "PYTHONSAFEPATH": "", **self._more}

    def verify(self) -> None:
        """Raises ``RuntimeError`` unless this copy is what its tests import."""
        found = subprocess.run(
            [sys.executable, "-c", f"import {PACKAGE}; print({PACKAGE}.__file__)"],
            cwd=self.root,
            env=self.environment(),
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        if Path(found).resolve() != (self.root / PACKAGE / "__init__.py").resolve():
            raise RuntimeError(f"the tests would import {found}, not the copy in {self.root}")

    def write(self, texts: dict[str, str]) -> None:
        for path, text in texts.items():
            (self.root / path).write_text(text)
            # Two texts of one size within a second look the same to the cache.
            Path(cache_from_source(str(self.root / path))).unlink(missing_ok=True)

    def run(self, ids: Iterable[str], timeout: int = TEST_TIMEOUT) -> Outcome:
        """Run tests of this copy; ``timeout`` is for each of them, in seconds."""
        ids = sorted(set(ids))
        report = self.root / "mutants.xml"
        report.unlink(missing_ok=True)
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        command += [f"--timeout={timeout}", f"--junitxml={report}", *ids]
        self._process = process = subprocess.Popen(
            command,
            cwd=self.root,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        try:
            output, _ = process.communicate(timeout=START_MARGIN + timeout * len(ids))
        except subprocess.TimeoutExpired:
            self.kill()
            process.wait()
            return Outcome(problem="pytest did not come to its end")
        finally:
            self._process = None
        outcome = Outcome(_cases(report)) if report.exists() else Outcome()
        if process.returncode not in (0, 1):
            outcome.problem = f"pytest exited {process.returncode}: {_last(output)}"
        return outcome

    def kill(self) -> None:
        """End what runs here. May be called from any thread."""
        if (process := self._process) is not None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def _cases(report: Path) -> list[Case]:
    cases = []
    for element in ElementTree.parse(report).iter("testcase"):
        state, message = "passed", ""
        for name, meaning in (("skipped", "skipped"), ("failure", "failed"), ("error", "error")):
            if (found := element.find(name)) is not None:
                state, message = meaning, found.get("message", "")
        cases.append(Case(element.get("classname", ""), element.get("name", ""), state, message))
    return cases


def _last(output: str) -> str:
    lines = [line.strip() for line in output.splitlines()]
    errors = [line for line in lines if line.startswith("E  ")]
    return " | ".join(
        (errors or [line for line in lines if line.startswith("ERROR")] or lines)[-2:]
    )


def judge(caught_by: Sequence[str], outcome: Outcome) -> tuple[Verdict, str]:
    """The verdict on a mutant by the tests that it names."""
    if outcome.problem:
        return Verdict.BROKEN, outcome.problem
    said = ""
    for test_id in caught_by:
        cases = outcome.of(test_id)
        failed = [case for case in cases if case.state == "failed"]
        other = [case for case in cases if case.state in ("error", "skipped")]
        if nonsense := [case for case in failed if case.message.startswith(_NO_PROGRAM)]:
            return Verdict.BROKEN, f"{test_id}: {nonsense[0].message.splitlines()[0]}"
        if not failed and (other or not cases):
            missing = f"{other[0].state}: {other[0].message}" if other else "was not run"
            return Verdict.BROKEN, f"{test_id}: {missing.splitlines()[0]}"
        if not failed:
            return Verdict.SURVIVED, f"{test_id} passes"
        said = said or failed[0].message
    return Verdict.CAUGHT, " | ".join(said.splitlines()[:2])


def undefined_names(paths: Iterable[Path]) -> str:
    """What is no program in these files: syntax errors, names that are nowhere defined."""
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--quiet", "--no-cache"]
    command += ["--output-format=concise", "--select=F821", *map(str, paths)]
    checked = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
    )
    return checked.stdout.strip() or (checked.stderr.strip() if checked.returncode else "")


def _run_all(copy: Copy, ids: list[str]) -> Outcome:
    """Run tests; one that is not there, or cannot be collected, takes no other with it."""
    outcome = copy.run(ids)
    if not outcome.problem or len(ids) == 1:
        return outcome
    middle = len(ids) // 2
    halves = [_run_all(copy, half) for half in (ids[:middle], ids[middle:])]
    problems = [half.problem for half in halves if half.problem]
    return Outcome([*halves[0].cases, *halves[1].cases], "; ".join(problems))


class Runner:
    """Runs mutants on copies of the tree, as many at once as there are ``environments``."""

    def __init__(
        self,
        root: Path,
        environments: Sequence[Mapping[str, str]],
        tell: Callable[[str], None],
    ) -> None:
        self._root = root
        self._environments = environments
        self._jobs = len(environments)
        self._tell = tell
        self._copies: SimpleQueue[Copy] = SimpleQueue()

    def run(self, mutants: Sequence[Mutant]) -> list[Result]:
        """The verdicts, in the order of the mutants."""
        with TemporaryDirectory(prefix="mutants-") as scratch:
            copies = [
                Copy(self._root, Path(scratch) / f"copy-{number}", more)
                for number, more in enumerate(self._environments)
            ]
            for copy in copies:
                copy.verify()
                self._copies.put(copy)
            with ThreadPoolExecutor(self._jobs) as executor:
                try:
                    unhurt = self._unmutated(executor, mutants)
                    return list(executor.map(lambda each: self._one(each, unhurt), mutants))
                except BaseException:
                    executor.shutdown(wait=False, cancel_futures=True)
                    for copy in copies:
                        copy.kill()
                    raise

    def _unmutated(self, executor: ThreadPoolExecutor, mutants: Sequence[Mutant]) -> dict[str, str]:
        """What is wrong with each named test before anything is broken; empty: it passes."""
        ids = sorted({test_id for mutant in mutants for test_id in mutant.caught_by})
        files = sorted({test_id.partition("::")[0] for test_id in ids})
        shares = [
            [each for each in ids if each.partition("::")[0] in set(files[number :: self._jobs])]
            for number in range(self._jobs)
        ]
        self._tell(f"{len(ids)} tests without any mutant")
        wrong: dict[str, str] = {}
        for share, outcome in zip(
            shares, executor.map(self._share, filter(None, shares)), strict=False
        ):
            for test_id in share:
                cases = outcome.of(test_id)
                bad = [case for case in cases if case.state != "passed"]
                if bad:
                    wrong[test_id] = f"{bad[0].state} without the mutant: {bad[0].message}"
                elif not cases:
                    wrong[test_id] = f"was not run without the mutant: {outcome.problem}"
        for test_id, problem in wrong.items():
            self._tell(f"{test_id}: {problem}")
        return wrong

    def _share(self, ids: list[str]) -> Outcome:
        copy = self._copies.get()
        try:
            return _run_all(copy, ids)
        finally:
            self._copies.put(copy)

    def _one(self, mutant: Mutant, wrong: dict[str, str]) -> Result:
        began = time.monotonic()
        copy = self._copies.get()
        try:
            verdict, detail = self._verdict(copy, mutant, wrong)
        finally:
            self._copies.put(copy)
        result = Result(mutant, verdict, detail, time.monotonic() - began)
        more = "" if verdict is Verdict.CAUGHT else detail
        self._tell(f"{verdict:<14} {result.seconds:5.1f} s  {mutant.name}  {more}".rstrip())
        return result

    def _verdict(self, copy: Copy, mutant: Mutant, wrong: dict[str, str]) -> tuple[Verdict, str]:
        for test_id in mutant.caught_by:
            if test_id in wrong:
                return Verdict.BROKEN, f"{test_id} {wrong[test_id]}".splitlines()[0]
        try:
            texts = mutant.mutated(copy.root)
        except DoesNotApply as reason:
            return Verdict.DOES_NOT_APPLY, str(reason)
        unhurt = {path: (copy.root / path).read_text() for path in texts}
        try:
            copy.write(texts)
            if problem := undefined_names(copy.root / path for path in texts):
                return Verdict.BROKEN, f"the patch is no program: {problem.splitlines()[0]}"
            return judge(mutant.caught_by, copy.run(mutant.caught_by))
        finally:
            copy.write(unhurt)
