"""The embedded PostgreSQL: usable, private, and gone with whoever started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import psutil
import pytest

from streamapp.demo import postgres as module
from streamapp.demo.guardian import Guardian
from streamapp.demo.postgres import EmbeddedPostgres, PostgresError

DEADLINE = 60.0

_PARENT = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
from streamapp.demo.guardian import Guardian
from streamapp.demo.postgres import EmbeddedPostgres
guardian = Guardian()
server = EmbeddedPostgres(guardian)
server.start()
print(guardian.pid, server.pid, guardian.directory, flush=True)
time.sleep(600)
"""


@pytest.fixture(scope="module")
def own() -> Iterator[EmbeddedPostgres]:
    """A server that tests may stop."""
    with Guardian() as guardian:
        server = EmbeddedPostgres(guardian)
        server.start()
        yield server


async def ask(dsn: str, question: str) -> object:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(question)
    finally:
        await connection.close()


async def test_commits_are_durable(postgres_dsn: str) -> None:
    for setting in ("fsync", "synchronous_commit", "full_page_writes"):
        assert await ask(postgres_dsn, f"show {setting}") == "on"


async def test_it_is_a_recent_one_in_utf8_and_utc(postgres_dsn: str) -> None:
    assert str(await ask(postgres_dsn, "show server_version")).startswith("18.")
    assert await ask(postgres_dsn, "show server_encoding") == "UTF8"
    assert await ask(postgres_dsn, "show timezone") == "UTC"


async def test_only_the_password_lets_in(postgres_dsn: str) -> None:
    user, _, rest = postgres_dsn.partition("@")
    without = user.rpartition(":")[0]
    with pytest.raises(asyncpg.InvalidPasswordError):
        await ask(f"{without}:wrong@{rest}", "select 1")
    assert "@127.0.0.1:" in postgres_dsn
    assert await ask(postgres_dsn, "show listen_addresses") == "127.0.0.1"
    assert await ask(postgres_dsn, "show unix_socket_directories") == ""


async def test_data_and_address_outlast_a_stop_and_a_crash(own: EmbeddedPostgres) -> None:
    dsn = own.start()
    await ask(dsn, "create table kept (n int)")
    for end in (own.stop, own.kill):
        await ask(dsn, "insert into kept values (1)")
        pid = own.pid
        assert pid is not None
        end()
        assert own.pid is None
        assert not psutil.pid_exists(pid)
        with pytest.raises(ConnectionError):
            await ask(dsn, "select 1")
        assert own.start() == dsn
    assert await ask(dsn, "select count(*) from kept") == 2
    own.stop()
    own.stop()


async def test_stop_does_not_wait_for_connections(own: EmbeddedPostgres) -> None:
    connection = await asyncpg.connect(own.start())
    try:
        own.stop()
    finally:
        connection.terminate()


async def test_a_taken_port_is_left_to_its_owner(
    monkeypatch: pytest.MonkeyPatch, own: EmbeddedPostgres, postgres: EmbeddedPostgres
) -> None:
    taken = int(postgres.dsn().rpartition(":")[2].partition("/")[0])
    free = module._free_port()
    ports = iter((taken, free))
    monkeypatch.setattr(module, "_free_port", lambda: next(ports))
    with Guardian() as guardian:
        other = EmbeddedPostgres(guardian)
        dsn = other.start()
        assert f":{free}/" in dsn
        assert await ask(dsn, "select 1") == 1


async def test_programs_out_of_reach_are_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_open_to_others", lambda package: False)
    with Guardian() as guardian:
        server = EmbeddedPostgres(guardian)
        assert await ask(server.start(), "select 1") == 1
        if os.geteuid() == 0:
            program = Path(psutil.Process(server.pid).exe())
            assert program.is_relative_to(guardian.directory)
            assert psutil.Process(server.pid).uids().effective != 0


def test_a_missing_wheel_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with Guardian() as guardian, pytest.raises(PostgresError, match=r"streamapp\[demo\]"):
        EmbeddedPostgres(guardian).start()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_outlives_the_process_that_started_it(number: signal.Signals) -> None:
    parent = subprocess.Popen([sys.executable, "-c", _PARENT], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    guardian, server, directory = parent.stdout.readline().split()
    pids = {int(guardian), int(server)}
    pids |= {child.pid for child in psutil.Process(int(server)).children(recursive=True)}
    assert len(pids) > 3
    parent.send_signal(number)
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + DEADLINE
    while any(psutil.pid_exists(pid) for pid in pids) or Path(directory).exists():
        assert time.monotonic() < deadline, "something is left"
        time.sleep(0.02)
