"""Crash points: nothing when off, one SIGKILL when armed, refused outside of a test."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamapp.resilience import crash_points
from streamapp.settings import SettingsError, load

PACKAGE = Path(crash_points.__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    crash_points.arm(None)


def test_every_point_is_reached_somewhere_and_is_in_the_registry() -> None:
    reached = set()
    for path in PACKAGE.rglob("*.py"):
        reached |= set(re.findall(r'crash_points\.reach\(\s*"([^"]+)"', path.read_text()))
    assert reached == set(crash_points.POINTS)


def test_nothing_happens_unless_something_is_armed() -> None:
    for point in crash_points.POINTS:
        crash_points.reach(point)


def test_the_process_ends_at_the_pass_that_was_named(monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: killed.append((pid, number)))
    crash_points.kill_at("step.started", 2)
    crash_points.reach("step.answered")
    crash_points.reach("step.started")
    assert killed == []
    crash_points.reach("step.started")
    assert killed == [(os.getpid(), signal.SIGKILL)]


@pytest.mark.parametrize(
    ("text", "parsed"),
    [("step.started", ("step.started", 1)), ("step.started:3", ("step.started", 3))],
)
def test_a_point_is_named_with_its_pass(text: str, parsed: tuple[str, int]) -> None:
    assert crash_points.parse(text) == parsed


@pytest.mark.parametrize(
    "text", ["nowhere", "", "step.started:0", "step.started:-1", "step.started:x"]
)
def test_what_is_no_point_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="point"):
        crash_points.parse(text)


def test_a_worker_is_armed_only_in_a_test() -> None:
    armed = {"STREAMAPP_CRASH_POINT": "step.started:3"}
    with pytest.raises(SettingsError, match="STREAMAPP_ENVIRONMENT=test"):
        load(armed)
    with pytest.raises(SettingsError, match="STREAMAPP_ENVIRONMENT=test"):
        load({**armed, "STREAMAPP_ENVIRONMENT": "production"})
    assert load({**armed, "STREAMAPP_ENVIRONMENT": "test"}).crash_point == "step.started:3"
    with pytest.raises(SettingsError, match="STREAMAPP_CRASH_POINT='nowhere'"):
        load({"STREAMAPP_CRASH_POINT": "nowhere", "STREAMAPP_ENVIRONMENT": "test"})
    assert load({"STREAMAPP_CRASH_POINT": ""}).crash_point is None
