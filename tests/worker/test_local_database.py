"""A local database whose disk misbehaves: it forgets, and never says anything wrong."""

from __future__ import annotations

import logging
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import rocksdict

from streamapp.worker.dedup import _Options
from streamapp.worker.local_database import (
    FROM_THE_START,
    OFFSET_KEY,
    RETRY_AFTER,
    LocalDatabase,
    trouble_of,
)
from tests.support.damage import FATAL, every, flip, truncated
from tests.worker.dedup_table import Bench, killed_after_marking

KEYS = [b"%010d|p-%d" % (number, number) for number in range(2000)]
FULL = Exception("IO error: No space left on device: While appending to file: /x/000004.log")


class Disk:
    """Opens real databases, and fails as told; ``troubles`` has what was reported."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.now = 1000.0
        self.troubles: list[str] = []
        self.refuses: Exception | None = None
        self.breaks: Exception | None = None
        self._options = _Options(1024 * 1024, self.troubles.append)

    def open(self) -> LocalDatabase:
        return LocalDatabase(self.path, self._open, self.troubles.append, lambda: self.now)

    def _open(self, path: Path) -> Any:
        if self.refuses is not None:
            raise self.refuses
        return Breakable(self, self._options._open(path))


class Breakable:
    """A database each call of which fails while its disk ``breaks``."""

    def __init__(self, disk: Disk, database: Any) -> None:
        self._disk = disk
        self._database = database

    def __getattr__(self, name: str) -> Any:
        if self._disk.breaks is not None and name != "close":
            raise self._disk.breaks
        return getattr(self._database, name)


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path / "tables" / "seen-0.db")


def value_of(key: bytes) -> bytes:
    return b"value of " + key + b"x" * 100


def filled(disk: Disk) -> None:
    """Leave a closed database with its keys in SST files."""
    database = disk.open()
    for key in KEYS:
        database.put(key, value_of(key))
    database.put(OFFSET_KEY, b"1999")
    database.close()


def check_answers(database: LocalDatabase) -> int:
    """No wrong answer; gives the number of keys that are known."""
    found = {key: database.get(key) for key in KEYS}
    known = {key for key, value in found.items() if value is not None}
    assert all(found[key] == value_of(key) for key in known)
    return len(known)


def check_it_works(disk: Disk, database: LocalDatabase) -> None:
    """It keeps what it is told from now on, also across a reopening."""
    database.put(b"later", b"kept")
    assert database.get(b"later") == b"kept"
    database.close()
    again = disk.open()
    assert again.get(b"later") == b"kept"
    again.close()


@pytest.mark.parametrize("kind", FATAL)
def test_damage_while_it_was_closed(disk: Disk, kind: str) -> None:
    filled(disk)
    FATAL[kind](disk.path)
    database = disk.open()
    known = check_answers(database)
    assert disk.troubles == ["damaged"]
    assert known < len(KEYS)
    assert database.get(OFFSET_KEY) == FROM_THE_START, "all of it is restored"
    check_it_works(disk, database)
    assert disk.troubles == ["damaged"]


def test_damage_while_it_is_open(disk: Disk) -> None:
    filled(disk)
    database = disk.open()
    every("*.sst", lambda path: flip(path, 0.5))(disk.path)
    check_answers(database)
    assert disk.troubles == ["damaged"]
    database.put(OFFSET_KEY, b"2000")  # a change that is acknowledged now
    assert database.get(OFFSET_KEY) == FROM_THE_START
    check_it_works(disk, database)


def test_older_state_is_no_wrong_answer(disk: Disk) -> None:
    """Half a MANIFEST is a valid one: of a database that knew less."""
    filled(disk)
    every("MANIFEST-*", truncated(1 << 30))(disk.path)
    database = disk.open()
    check_answers(database)
    check_it_works(disk, database)


@pytest.mark.parametrize(
    "damage",
    [
        every("*.log", lambda path: flip(path, 0.5)),
        every("*.log", truncated(1 << 30)),
        every("*.log", Path.unlink),
        every("OPTIONS-*", lambda path: flip(path, 0.0)),
        every("rocksdict-config.json", lambda path: os.truncate(path, 0)),
    ],
    ids=["flipped", "truncated", "gone", "options", "description"],
)
def test_a_damaged_log_of_a_killed_process(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    ids = [f"p-{number}" for number in range(300)]
    killed_after_marking(_run, tmp_path, *ids)
    bench = Bench(tmp_path)
    damage(bench.path())
    found = [bench.look_up(each) for each in ids]
    for each, value in zip(ids, found, strict=True):
        assert value in (None, b"hash of " + each.encode())
    bench.mark("later", b"kept")
    assert bench.look_up("later") == b"kept"
    bench.drop()


def _run(command: list[str]) -> Any:
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_a_removed_directory_comes_back(disk: Disk) -> None:
    filled(disk)
    every("*", Path.unlink)(disk.path)
    disk.path.rmdir()
    disk.path.parent.rmdir()
    database = disk.open()
    assert check_answers(database) == 0
    check_it_works(disk, database)


def test_a_file_in_its_place(disk: Disk) -> None:
    disk.path.parent.mkdir()
    disk.path.write_bytes(b"no directory")
    check_it_works(disk, disk.open())
    assert disk.troubles == ["damaged"]


# A disk that cannot be used for a while


@pytest.mark.parametrize("when", ["opening", "working"])
def test_a_full_disk_forgets_and_comes_back(
    disk: Disk, when: str, caplog: pytest.LogCaptureFixture
) -> None:
    filled(disk)
    database = disk.open()
    if when == "opening":
        database.close()
        disk.refuses = FULL
        database = disk.open()
    else:
        disk.refuses = disk.breaks = FULL
    with caplog.at_level(logging.INFO):
        for _ in range(100):
            database.put(b"lost", b"x")
            database.write(rocksdict.WriteBatch(raw_mode=True))
            database.delete(b"lost")
            database.delete_range(b"0", b"1")
            database.put(OFFSET_KEY, b"2500")
            assert database.get(KEYS[0]) is None
        disk.now += RETRY_AFTER
        assert database.get(KEYS[0]) is None
        assert disk.troubles == ["unusable"], "told once"
        assert caplog.text.count("cannot be used") == 1
        disk.refuses = disk.breaks = None
        assert database.get(KEYS[0]) is None, "not tried again for every call"
        disk.now += RETRY_AFTER
        assert check_answers(database) == len(KEYS), "nothing was deleted"
        assert caplog.text.count("can be used again") == 1
    # What it was not told meanwhile is restored: the offset did not move.
    database.put(OFFSET_KEY, b"2501")
    assert database.get(OFFSET_KEY) == b"1999"
    database.put(OFFSET_KEY, b"2502")
    assert database.get(OFFSET_KEY) == b"2502", "restored, so it counts again"
    check_it_works(disk, database)


def test_damage_on_a_full_disk(disk: Disk) -> None:
    filled(disk)
    FATAL["CURRENT emptied"](disk.path)
    database = disk.open()
    disk.breaks = Exception("Corruption: block checksum mismatch")
    disk.refuses = FULL
    assert database.get(KEYS[0]) is None
    disk.refuses = disk.breaks = None
    disk.now += RETRY_AFTER
    assert database.get(OFFSET_KEY) == FROM_THE_START
    check_it_works(disk, database)
    assert disk.troubles == ["damaged", "damaged", "unusable"]


def test_a_table_directory_that_cannot_be_made(disk: Disk) -> None:
    disk.path.parent.write_bytes(b"in the way")
    database = disk.open()
    database.put(b"key", b"value")
    assert database.get(b"key") is None
    with pytest.raises(OSError, match="cannot be used"):
        list(database.keys())
    disk.path.parent.unlink()
    disk.now += RETRY_AFTER
    check_it_works(disk, database)


def test_a_database_that_is_open_elsewhere_is_waited_for_and_not_deleted(disk: Disk) -> None:
    filled(disk)
    first = disk.open()
    with pytest.raises(Exception, match="lock"):  # by this word Faust knows that it has to wait
        disk.open()
    assert disk.troubles == []
    assert check_answers(first) == len(KEYS)
    first.close()


@pytest.mark.parametrize(
    ("text", "trouble"),
    [
        ("IO error: No space left on device: While appending", "unusable"),
        ("IO error: File too large: While appending to file", "unusable"),
        ("IO error: Permission denied: While open a file for appending", "unusable"),
        ("IO error: While lock file: /x/LOCK: Resource temporarily unavailable", "unusable"),
        ("Corruption: block checksum mismatch", "damaged"),
        ("IO error: No such file or directory: While opening a file", "damaged"),
        ("IO error: Input/output error: While pread", "damaged"),
    ],
)
def test_what_an_error_says(text: str, trouble: str) -> None:
    assert trouble_of(Exception(text)) == trouble
