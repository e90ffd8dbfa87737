"""Log lines: one format and stream, and not a thousand times the same."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from streamapp.observability.logging import MAX_KEYS, RateLimited, configure


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_json_lines_of_both_kinds_of_loggers() -> None:
    stream = io.StringIO()
    configure("info", as_json=True, stream=stream)
    structlog.get_logger("ours").info("saga_finished", status="COMPLETED")
    logging.getLogger("theirs").warning("partition %d", 3)
    ours, theirs = lines(stream)
    assert (ours["event"], ours["status"], ours["level"]) == ("saga_finished", "COMPLETED", "info")
    assert (theirs["event"], theirs["logger"], theirs["level"]) == (
        "partition 3",
        "theirs",
        "warning",
    )
    assert "timestamp" in ours


def test_the_level_holds_for_both() -> None:
    stream = io.StringIO()
    configure("warning", as_json=True, stream=stream)
    structlog.get_logger("ours").info("hidden")
    logging.getLogger("theirs").info("hidden")
    structlog.get_logger("ours").warning("shown")
    assert [line["event"] for line in lines(stream)] == ["shown"]


def test_an_exception_keeps_its_stack_trace() -> None:
    stream = io.StringIO()
    configure("info", as_json=True, stream=stream)
    try:
        raise ValueError("broken")
    except ValueError:
        structlog.get_logger("ours").exception("failed")
    (line,) = lines(stream)
    assert "ValueError: broken" in line["exception"]


def test_console_lines_have_no_colours_without_a_terminal() -> None:
    stream = io.StringIO()
    configure("info", stream=stream)
    structlog.get_logger("ours").info("started", port=1)
    assert "started" in stream.getvalue()
    assert "port=1" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


def test_configuring_again_does_not_double_lines() -> None:
    stream = io.StringIO()
    configure("info", as_json=True, stream=io.StringIO())
    configure("info", as_json=True, stream=stream)
    logging.getLogger("theirs").info("once")
    assert len(lines(stream)) == 1


class Written:
    """A log method that keeps what it was given, and a clock that is set by hand."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []
        self.now = 100.0
        self.limited = RateLimited(60.0, clock=lambda: self.now)

    def __call__(self, event: str, **fields: Any) -> None:
        self.lines.append((event, fields))


def test_one_line_an_interval_and_the_number_held_back() -> None:
    log = Written()
    assert log.limited("database", log, "away", error="x")
    for _ in range(3):
        assert not log.limited("database", log, "away", error="x")
    log.now += 59.9
    assert not log.limited("database", log, "away", error="x")
    log.now += 0.1
    assert log.limited("database", log, "away", error="y")
    log.now += 60
    assert log.limited("database", log, "away", error="z")
    assert log.lines == [
        ("away", {"error": "x"}),
        ("away", {"error": "y", "repeated": 4}),
        ("away", {"error": "z"}),
    ]


def test_keys_do_not_hold_each_other_back() -> None:
    log = Written()
    assert log.limited("database", log, "away")
    assert log.limited("broker", log, "away")


def test_a_forgotten_key_is_written_at_once() -> None:
    log = Written()
    log.limited("database", log, "away")
    log.limited.forget("database")
    log.limited.forget("never seen")
    assert log.limited("database", log, "away")


def test_keys_are_bounded() -> None:
    log = Written()
    for number in range(MAX_KEYS * 2):
        log.limited(str(number), log, "away")
    assert len(log.limited._seen) == MAX_KEYS
    assert not log.limited(str(MAX_KEYS * 2 - 1), log, "away")
