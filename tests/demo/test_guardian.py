"""Processes and their directory end with whoever started them, however that ends."""

from __future__ import annotations

import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from streamapp.demo import guardian_process
from streamapp.demo.guardian import Guardian, GuardianError

DEADLINE = 30.0
SLEEPER = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    "print('up', flush=True); time.sleep(600)",
]


@pytest.fixture
def own() -> Iterator[Guardian]:
    with Guardian() as guardian:
        yield guardian


def wait_for_output(log: Path) -> None:
    deadline = time.monotonic() + DEADLINE
    while "up" not in (log.read_text() if log.exists() else ""):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_process_runs_and_is_stopped(own: Guardian) -> None:
    child = own.start("sleeper", SLEEPER)
    assert child.running
    assert psutil.Process(child.pid).is_running()
    with pytest.raises(TimeoutError):
        child.wait(0.01)
    assert child.stop() == -signal.SIGTERM
    assert not child.running
    assert child.returncode == -signal.SIGTERM
    assert not psutil.pid_exists(child.pid)
    assert child.stop() == -signal.SIGTERM


def test_its_exit_code_and_output_are_told(own: Guardian) -> None:
    child = own.start("short", [sys.executable, "-c", "print('one'); print('two'); exit(3)"])
    assert child.wait(DEADLINE) == 3
    assert child.tail(1) == "two"
    assert child.log == own.directory / "short.log"


def test_environment_and_directory_are_those_given(own: Guardian) -> None:
    program = "import os; print(os.environ.get('GIVEN'), 'HOME' in os.environ, os.getcwd())"
    folder = own.directory / "folder"
    folder.mkdir()
    child = own.start(
        "env", [sys.executable, "-c", program], environment={"GIVEN": "it"}, directory=folder
    )
    child.wait(DEADLINE)
    assert child.tail() == f"it False {folder.resolve()}"


def test_signals_reach_it(own: Guardian) -> None:
    child = own.start("sleeper", SLEEPER)
    child.signal(signal.SIGKILL)
    assert child.wait(DEADLINE) == -signal.SIGKILL


def test_what_does_not_start_is_told(own: Guardian) -> None:
    with pytest.raises(GuardianError, match=r"ghost did not start: .*No such file"):
        own.start("ghost", ["/nonexistent/program"])
    own.start("ghost", SLEEPER)
    with pytest.raises(GuardianError, match="ghost runs already"):
        own.start("ghost", SLEEPER)


def test_a_name_is_free_again_once_its_process_has_ended(own: Guardian) -> None:
    first = own.start("sleeper", SLEEPER)
    first.stop()
    second = own.start("sleeper", SLEEPER)
    assert second.running
    assert second.pid != first.pid
    second.stop()
    assert not psutil.pid_exists(second.pid)


def test_close_stops_all_and_removes_the_directory() -> None:
    guardian = Guardian()
    pids = [guardian.start(name, SLEEPER).pid for name in ("one", "two")]
    (guardian.directory / "left").mkdir()
    (guardian.directory / "left" / "file").write_text("x")
    guardian.close()
    guardian.close()
    assert not any(psutil.pid_exists(pid) for pid in [*pids, guardian.pid])
    assert not guardian.directory.exists()
    with pytest.raises(GuardianError, match="gone"):
        guardian.start("late", SLEEPER)


def test_the_youngest_is_stopped_first(tmp_path: Path) -> None:
    guardian = Guardian()
    with guardian:
        # The younger needs the older to be there while it stops, as a worker needs its database.
        older = guardian.start("older", SLEEPER)
        witness = tmp_path / "witness"
        program = (
            "import os, pathlib, signal, sys, time\n"
            "def stop(*_):\n"
            "    time.sleep(0.2)\n"
            f"    os.kill({older.pid}, 0)\n"
            f"    pathlib.Path({str(witness)!r}).write_text('in order')\n"
            "    sys.exit()\n"
            "signal.signal(signal.SIGTERM, stop)\n"
            "print('up', flush=True)\n"
            "time.sleep(600)\n"
        )
        younger = guardian.start("younger", [sys.executable, "-c", program])
        wait_for_output(younger.log)
    assert witness.read_text() == "in order"


def test_one_that_ignores_its_signal_is_killed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(guardian_process, "POLITE", 0.1)
    answers: list[dict[str, object]] = []
    keeper = guardian_process.Keeper()
    monkeypatch.setattr(keeper, "tell", lambda **answer: answers.append(answer))
    log = tmp_path / "log"
    keeper.carry_out(
        {
            "do": "start",
            "name": "stubborn",
            "arguments": STUBBORN,
            "environment": {},
            "directory": "/",
            "log": str(log),
            "uid": None,
            "gid": None,
            "signals": [signal.SIGTERM],
        }
    )
    wait_for_output(log)
    keeper.stop_all()
    pid = answers[0]["pid"]
    assert isinstance(pid, int)
    assert not psutil.pid_exists(pid)


def test_a_lost_guardian_is_told(own: Guardian) -> None:
    child = own.start("sleeper", SLEEPER)
    try:
        psutil.Process(own.pid).kill()
        with pytest.raises(GuardianError, match="gone"):
            child.wait(DEADLINE)
        assert not child.running
    finally:
        psutil.Process(child.pid).kill()
        shutil.rmtree(own.directory)
