"""One worker, one state directory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from streamapp.worker.state_directory import LOCK, StateDirectory, StateRefused

HOLD = (
    "import sys, time, pathlib\n"
    "from streamapp.worker.state_directory import StateDirectory\n"
    "state = StateDirectory(pathlib.Path(sys.argv[1]))\n"
    "state.take()\n"
    "print('taken', flush=True)\n"
    "time.sleep(600)\n"
)


def test_it_is_made_and_taken_once(tmp_path: Path) -> None:
    path = tmp_path / "new" / "state"
    first = StateDirectory(path)
    first.take()
    assert (path / LOCK).read_text() == f"{os.getpid()}\n"
    with pytest.raises(StateRefused, match=rf"in use by another worker \(process {os.getpid()}\)"):
        StateDirectory(path).take()
    assert (path / LOCK).read_text() == f"{os.getpid()}\n", "the holder's"
    StateDirectory(tmp_path / "other").take()


def test_it_is_free_when_its_holder_is_killed(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline().strip() == "taken"
        with pytest.raises(StateRefused, match=f"process {holder.pid}"):
            StateDirectory(tmp_path).take()
    finally:
        holder.kill()
        holder.wait()
        assert holder.stdout is not None
        holder.stdout.close()
    StateDirectory(tmp_path).take()


def test_what_cannot_be_written_is_refused_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StateRefused, match=r"file/state cannot be written \(Not a directory\)"):
        StateDirectory(tmp_path / "file" / "state").take()
