"""What a run says in the end: figures of each kind, and whether it shows anything."""

from __future__ import annotations

from tests.chaos.checks import Case, summary
from tests.chaos.evidence import Violation
from tests.chaos.report import Report
from tests.chaos.schedule import FaultKind
from tests.chaos.test_checks import BEGAN, sound


def new_report() -> Report:
    return Report(Case(sound()), [], BEGAN)


def shown(report: Report) -> str:
    lines: list[str] = []
    report.show(lines.append)
    return "\n".join(lines)


def test_messages_are_counted_by_what_became_of_them() -> None:
    assert new_report().messages() == {
        "sent": 9,
        "in_log": 9,
        "distinct": 4,
        "duplicates": 4,
        "bad": 1,
        "processed": 3,
        "compensated": 1,
        "stuck": 0,
        "dead_lettered": 2,
        "dead_lettered_actions": 0,
    }


def test_a_check_that_had_nothing_to_look_at_is_told() -> None:
    report = new_report()
    report.judge("something", 3, [])
    report.judge("nothing", 0, [])
    assert report.without_evidence == ["nothing"]


def test_planned_and_carried_out_faults_stand_side_by_side() -> None:
    report = new_report()
    report.planned[FaultKind.KILL] = 3
    report.carried_out[FaultKind.KILL] = 2
    (line,) = [line for line in shown(report).splitlines() if line.startswith("  worker killed ")]
    assert line.split()[-2:] == ["3", "2"]
    assert report.as_json()["faults"] == {"worker killed": {"planned": 3, "carried_out": 2}}


def test_a_violation_is_shown_with_all_that_is_known_of_its_messages() -> None:
    report = new_report()
    report.add([Violation("lost", "a-1 is gone", ("a-1",))])
    text = shown(report)
    assert "LOST: a-1 is gone" in text
    assert "key key-a-1" in text
    assert report.counts()["lost"] == 1


def test_what_stands_still_or_shows_nothing_does_not_end_like_a_clean_run() -> None:
    clean = summary([])
    for kind in ("no progress", "shows nothing", "wrong"):
        assert summary([Violation(kind, "")]) != clean
