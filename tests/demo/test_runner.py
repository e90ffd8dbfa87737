"""The demo, as somebody runs it."""

from __future__ import annotations

import signal
import socket
from collections import Counter

import psutil

from streamapp.demo.traffic import DEAD_LETTERS, DUPLICATES, Kind, sample
from tests.demo.support import demo, last_json, wait_until_gone

MESSAGES = 60
SEED = 7


def test_every_message_comes_to_the_end_that_its_kind_has() -> None:
    kinds = Counter(record.kind for record in sample(MESSAGES, SEED))
    with demo(
        "--messages", str(MESSAGES), "--exit", "--json", "--seed", str(SEED), "--rate", "60"
    ) as running:
        directory = running.directory
        processes = running.family()
        code, out = running.end()
        assert code == 0, running.err
        wait_until_gone(processes, directory)
    assert len(out.splitlines()) == 1
    result = last_json(out)
    assert result["sent"] == MESSAGES
    assert result["duplicates"] == sum(kinds[kind] for kind in DUPLICATES)
    assert result["dead_lettered"] == sum(kinds[kind] for kind in DEAD_LETTERS)
    assert result["processed"] == result["sagas_completed"]
    assert result["sent"] == sum(
        result[name] for name in ("processed", "duplicates", "dead_lettered")
    )
    assert result["sagas_compensated"] == kinds[Kind.REJECTED_ORDER] > 0
    assert result["sagas_stuck"] == result["unaccounted"] == 0
    assert result["seconds"] > 0


def test_a_lost_message_is_noticed() -> None:
    with demo(
        "--messages", "5", "--exit", "--json", "--rate", "100", "--lose", "--patience", "4"
    ) as running:
        code, out = running.end()
        assert code == 1
        running.wait_for_end()
        assert "1 messages are missing" in running.err
    result = last_json(out)
    assert (result["sent"], result["unaccounted"]) == (5, 1)


def test_it_goes_on_until_it_is_interrupted_and_leaves_nothing() -> None:
    with demo("--json", "--rate", "100") as running:
        directory = running.directory
        processes = running.family()
        assert len(processes) > 3  # guardian, database and its own, worker
        running.wait_for(r"processed [1-9]")
        running.process.send_signal(signal.SIGINT)
        code, out = running.end()
        assert code == 0, running.err
        wait_until_gone(processes, directory)
    result = last_json(out)
    assert result["interrupted"]
    assert result["processed"] > 0


def test_nothing_outlives_it_when_it_is_killed() -> None:
    with demo() as running:
        directory = running.directory
        running.wait_for(r"sent \d")
        processes = running.family()
        assert any("worker" in process.cmdline() for process in processes)
        running.process.kill()
        wait_until_gone(processes, directory)


def test_a_worker_that_ends_is_told() -> None:
    with demo("--messages", "1000", "--exit") as running:
        running.wait_for(r"sent \d")
        (worker,) = [
            process
            for process in running.family()
            if process.status() != psutil.STATUS_ZOMBIE and "worker" in process.cmdline()
        ]
        worker.kill()
        code, out = running.end()
        assert code == 1
        running.wait_for_end()
        assert "the worker has ended" in running.err
        assert "Traceback" not in running.err
    assert out == ""


def test_a_port_that_is_taken_is_told() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with demo("--port", str(port)) as running:
            code, out = running.end()
            running.wait_for_end()
    assert code == 1
    assert f"port {port} is taken" in running.err
    assert out == ""


def test_an_end_needs_a_number_of_messages() -> None:
    with demo("--exit") as running:
        code, _ = running.end()
        running.wait_for_end()
    assert code == 2
    assert "--exit needs --messages" in running.err
