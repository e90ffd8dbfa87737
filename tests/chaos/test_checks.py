"""The checks of a chaos run: each finds what it is there for, and nothing in a sound run."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from streamapp.pipeline.dead_letter import PREFIX
from tests.chaos.checks import APOLOGY, Case, summary
from tests.chaos.evidence import (
    NUMBER,
    Event,
    Evidence,
    Kind,
    Logged,
    Mail,
    Request,
    Sent,
    Violation,
)
from tests.chaos.order import CHECKS
from tests.chaos.report import dossier

BEGAN = datetime(2025, 1, 1, tzinfo=UTC)
KINDS = {"a-1": Kind.ORDER, "a-2": Kind.ORDER, "b-1": Kind.REJECTED, "b-2": Kind.OTHER}
BAD_NUMBER = 9


def at(seconds: float) -> datetime:
    return BEGAN + timedelta(seconds=seconds)


def logged(sent: Sent, offset: int) -> Logged:
    headers = ((NUMBER, str(sent.number).encode()),)
    return Logged(0, offset, sent.key, sent.value, headers)


def letter(record: Logged, action: str = "") -> Logged:
    origin = f"ai-results:{record.partition}:{record.offset}:0"
    ours = {"origin": origin, "action": action, "id": f"letter-{record.offset}-{action}"}
    headers = tuple((PREFIX + name, text.encode()) for name, text in ours.items())
    return Logged(0, record.offset, record.key, record.value, record.headers + headers)


def letter_row(record: Logged, action: str = "") -> dict[str, Any]:
    return {
        "partition": record.partition,
        "offset": record.offset,
        "action": action,
        "original_key": record.key,
        "original_value": record.value,
    }


def request(id_: str, operation: Any, seconds: float, effect: Any) -> Request:
    lead, seq = id_.split("-")
    return Request(
        seconds, operation, f"key-{id_}", id_, lead, int(seq), operation, effect, seconds, "200"
    )


def sound() -> Evidence:
    """Two leads, two messages each, one of them refused; a duplicate of each, a bad record."""
    evidence = Evidence("ai-results")
    sent: dict[int, Sent] = {}
    log: list[Logged] = []
    for turn in range(2):  # the second time as duplicates
        for number, (id_, kind) in enumerate(KINDS.items(), start=turn * len(KINDS)):
            lead, seq = id_.split("-")
            sent[number] = Sent(number, kind, id_, lead, int(seq), lead.encode(), id_.encode())
            log.append(logged(sent[number], number))
    sent[BAD_NUMBER] = Sent(BAD_NUMBER, Kind.BAD, "", "a", 0, None, b"bad")
    log.append(logged(sent[BAD_NUMBER], BAD_NUMBER))
    evidence.sent, evidence.log, evidence.acknowledged = sent, log, frozenset(sent)
    sagas, steps, tasks, activities, outbox, outbound = [], [], [], [], [], []
    requests, effects, mails = [], [], []
    for number, (id_, kind) in enumerate(KINDS.items()):
        undone = kind is Kind.REJECTED
        lead, seq = id_.split("-")
        begin = 10.0 * number
        sagas.append(
            {
                "processing_id": id_,
                "run": 0,
                "status": "COMPENSATED" if undone else "COMPLETED",
                "partition": 0,
                "offset": number,
                "reason": "step_rejected" if undone else None,
                "error": None,
                "epoch": 1,
                "stuck_retries": 0,
                "created_at": at(begin),
                "finished_at": at(begin + 5),
            }
        )
        task = {"processing_id": id_, "lead_id": lead, "created_at": at(begin)}
        task["task_type"] = "manual_review" if kind is Kind.OTHER else "order_processing"
        tasks.append(task | {"status": "cancelled" if undone else "pending"})
        activities.append({"lead_id": lead, "seq": int(seq), "created_at": at(begin)})
        if kind is not Kind.OTHER:
            requests.append(request(id_, "create", begin + 1, "" if undone else "created"))
            steps.append(step(id_, "order_service", f"key-{id_}", "FAILED" if undone else "DONE"))
        if kind is Kind.ORDER:
            effects.append(requests[-1])
            steps.append(step(id_, "email", f"mail-{id_}", "DONE"))
            mails.append(Mail(begin + 2, f"mail-{id_}", f"<{id_}>", True, "well"))
        outbox.append({"id": number, "in_reply_to": id_, "published_at": at(begin + 6)})
        said = {
            "message_id": f"m-{id_}",
            "in_reply_to": id_,
            "text": APOLOGY if undone else "Done.",
        }
        outbound.append(Logged(0, number, lead.encode(), json.dumps(said).encode()))
    evidence.sagas, evidence.steps, evidence.tasks = sagas, steps, tasks
    evidence.activities, evidence.outbox, evidence.outbound = activities, outbox, outbound
    evidence.requests, evidence.effects, evidence.mails = requests, effects, mails
    evidence.active = frozenset(effect.key for effect in effects)
    parked = [log[2], log[-1]]
    evidence.letters = [letter(record) for record in parked]
    evidence.dead_letters = [letter_row(record) for record in parked]
    return evidence


def step(id_: str, sub_step: str, key: str, status: str) -> dict[str, Any]:
    return {
        "processing_id": id_,
        "action": "notify_sales" if sub_step == "email" else "create_order",
        "sub_step": sub_step,
        "direction": "forward",
        "status": status,
        "key": key,
        "attempts": 1,
        "in_doubt": False,
        "first_attempt_at": at(1),
        "last_attempt_at": at(2),
        "error": None,
    }


def judge(evidence: Evidence) -> list[Violation]:
    case = Case(evidence)
    return [violation for check in CHECKS.values() for violation in check(case)[1]]


def changed(rows: Any, index: int, **fields: Any) -> list[Any]:
    return [{**row, **fields} if n == index else row for n, row in enumerate(rows)]


def without(rows: Any, index: int) -> list[Any]:
    return [row for n, row in enumerate(rows) if n != index]


def turned(rows: Any) -> list[Any]:
    return [rows[1], rows[0], *rows[2:]]


def test_a_sound_run_has_no_violation() -> None:
    evidence = sound()
    assert judge(evidence) == []
    assert summary([]) == "0 lost, 0 doubled, 0 out of order"


def test_every_check_looks_at_something() -> None:
    case = Case(sound())
    assert [name for name, check in CHECKS.items() if check(case)[0] == 0] == []


def test_what_may_repeat_is_no_violation() -> None:
    evidence = sound()
    evidence.requests = [*evidence.requests, evidence.requests[0]]
    evidence.mails = [*evidence.mails, evidence.mails[0]]
    evidence.outbound = [*evidence.outbound, evidence.outbound[0]]
    evidence.letters = [*evidence.letters, evidence.letters[0]]
    assert judge(evidence) == []


Damage = Callable[[Evidence], dict[str, Any]]

LOST: dict[str, Damage] = {
    "record": lambda e: {
        "log": e.log[:-1],
        "letters": e.letters[:1],
        "dead_letters": e.dead_letters[:1],
    },
    "saga": lambda e: {"sagas": without(e.sagas, 3)},
    "end": lambda e: {"sagas": changed(e.sagas, 0, status="RUNNING")},
    "task": lambda e: {"tasks": without(e.tasks, 0)},
    "task of an undone order": lambda e: {"tasks": without(e.tasks, 2)},
    "order": lambda e: {"active": frozenset({"key-a-1"})},
    "mail": lambda e: {"mails": e.mails[1:]},
    "reply": lambda e: {"outbound": e.outbound[1:]},
    "apology": lambda e: {"outbound": [*e.outbound[:2], *e.outbound[3:]]},
    "letter of a saga": lambda e: {"letters": e.letters[1:]},
    "letter of a bad record": lambda e: {"letters": e.letters[:1]},
    "row of a letter": lambda e: {"dead_letters": e.dead_letters[1:]},
    "letter of an action": lambda e: {"steps": changed(e.steps, 1, status="FAILED")},
}


@pytest.mark.parametrize("name", LOST)
def test_a_lost_effect_is_found(name: str) -> None:
    evidence = sound()
    found = judge(replace(evidence, **LOST[name](evidence)))
    assert {violation.kind for violation in found} >= {"lost"}
    assert not summary(found).startswith("0 lost")


DOUBLED: dict[str, Damage] = {
    "task": lambda e: {"tasks": [*e.tasks, e.tasks[0]]},
    "run": lambda e: {"sagas": changed(e.sagas, 0, run=1)},
    "order under another key": lambda e: {
        "requests": [*e.requests, replace(e.requests[0], key="key-a-2")]
    },
    "order": lambda e: {"effects": [*e.effects, e.effects[1]]},
    "mail with another id": lambda e: {
        "mails": [*e.mails, replace(e.mails[0], message_id="<another>")]
    },
    "reply": lambda e: {
        "outbound": [
            *e.outbound,
            replace(e.outbound[0], value=b'{"message_id": "x", "in_reply_to": "a-1"}'),
        ]
    },
    "row of a letter": lambda e: {"dead_letters": [*e.dead_letters, e.dead_letters[0]]},
    "letter": lambda e: {
        "letters": [*e.letters, replace_header(e.letters[0], PREFIX + "id", b"another")]
    },
}


def retold(record: Logged, before: str, after: str) -> Logged:
    return replace(record, value=(record.value or b"").replace(before.encode(), after.encode()))


def replace_header(record: Logged, name: str, value: bytes) -> Logged:
    headers = tuple((n, value if n == name else v) for n, v in record.headers)
    return replace(record, headers=headers)


@pytest.mark.parametrize("name", DOUBLED)
def test_a_doubled_effect_is_found(name: str) -> None:
    evidence = sound()
    found = judge(replace(evidence, **DOUBLED[name](evidence)))
    assert "doubled" in {violation.kind for violation in found}
    assert ", 0 doubled" not in summary(found)


REORDERED: dict[str, Damage] = {
    "requests": lambda e: {"requests": turned(e.requests)},
    "orders": lambda e: {"effects": turned(e.effects)},
    "mails": lambda e: {"mails": turned(e.mails)},
    "tasks": lambda e: {"tasks": changed(e.tasks, 0, created_at=at(99))},
    "a later task": lambda e: {
        "tasks": [*e.tasks, {**e.tasks[0], "task_type": "other", "created_at": at(99)}]
    },
    "activities": lambda e: {"activities": changed(e.activities, 0, created_at=at(99))},
    "outbox rows": lambda e: {"outbox": changed(e.outbox, 0, id=99)},
    "replies": lambda e: {"outbound": turned(e.outbound)},
    "sagas": lambda e: {"sagas": changed(e.sagas, 1, created_at=at(4))},
    "source": lambda e: {"sagas": changed(e.sagas, 0, offset=4)},
}


@pytest.mark.parametrize("name", REORDERED)
def test_a_reordered_effect_is_found(name: str) -> None:
    evidence = sound()
    found = judge(replace(evidence, **REORDERED[name](evidence)))
    assert {violation.kind for violation in found} == {"out of order"}
    assert not summary(found).endswith("0 out of order")


WRONG: dict[str, Damage] = {
    "saga of nobody": lambda e: {"sagas": [*e.sagas, {**e.sagas[0], "processing_id": "x-1"}]},
    "refused and completed": lambda e: {"sagas": changed(e.sagas, 2, status="COMPLETED")},
    "undone without a reason": lambda e: {"sagas": changed(e.sagas, 3, status="COMPENSATED")},
    "not refused, and rejected": lambda e: {"sagas": changed(e.sagas, 0, reason="step_rejected")},
    "open task of an undone order": lambda e: {"tasks": changed(e.tasks, 2, status="pending")},
    "cancelled task": lambda e: {"tasks": changed(e.tasks, 0, status="cancelled")},
    "task of nobody": lambda e: {"tasks": [*e.tasks, {**e.tasks[0], "processing_id": "x-1"}]},
    "standing order": lambda e: {"active": e.active | {"key-b-1"}},
    "key that is not in the journal": lambda e: {"steps": e.steps[1:]},
    "other bytes under a key": lambda e: {
        "requests": [*e.requests, replace(e.requests[0], body="other")]
    },
    "mail of nobody": lambda e: {"mails": [*e.mails, replace(e.mails[0], key="x")]},
    "reply of an undone order beside the apology": lambda e: {
        "outbound": [
            *e.outbound,
            replace(e.outbound[0], value=b'{"message_id": "x", "in_reply_to": "b-1"}'),
        ]
    },
    "success told of an undone order": lambda e: {
        "outbound": [
            *e.outbound[:2],
            replace(
                e.outbound[2],
                value=(e.outbound[2].value or b"").replace(APOLOGY.encode(), b"Done."),
            ),
            *e.outbound[3:],
        ]
    },
    "apology for a completed order": lambda e: {
        "outbound": [
            replace(
                e.outbound[0],
                value=(e.outbound[0].value or b"").replace(b"Done.", APOLOGY.encode()),
            ),
            *e.outbound[1:],
        ]
    },
    "letter without a reason": lambda e: {"letters": [*e.letters, letter(e.log[0])]},
    "row without a reason": lambda e: {"dead_letters": [*e.dead_letters, letter_row(e.log[0])]},
    "letter with other bytes": lambda e: {
        "letters": [replace(e.letters[0], value=b"changed"), e.letters[1]]
    },
    "letter without its headers": lambda e: {
        "letters": [replace(e.letters[0], headers=e.letters[0].headers[1:]), e.letters[1]]
    },
    "row with other bytes": lambda e: {
        "dead_letters": changed(e.dead_letters, 0, original_value=b"changed")
    },
}


TEXTS = {
    "refused and completed": "b-1 completed a refused order",
    "undone without a reason": "b-2 needs no service and was undone: None",
    "not refused, and rejected": "a-1 counts as rejected and was not",
    "standing order": "b-1 was undone, its order still stands",
}


@pytest.mark.parametrize("name", TEXTS)
def test_a_wrong_end_is_told(name: str) -> None:
    evidence = sound()
    found = judge(replace(evidence, **WRONG[name](evidence)))
    assert TEXTS[name] in {violation.text for violation in found}


@pytest.mark.parametrize("name", WRONG)
def test_what_else_is_wrong_is_found(name: str) -> None:
    evidence = sound()
    found = judge(replace(evidence, **WRONG[name](evidence)))
    assert "wrong" in {violation.kind for violation in found}
    assert "otherwise wrong" in summary(found)


def test_a_stuck_saga_lets_the_next_message_pass() -> None:
    evidence = sound()
    evidence.sagas = changed(evidence.sagas, 2, finished_at=at(99), stuck_retries=1)
    assert judge(evidence) == []


def test_the_dossier_tells_all_of_a_message_and_what_was_broken_then() -> None:
    events = [Event(2.0, "worker killed"), Event(500.0, "much later")]
    text = "\n".join(dossier(Case(sound()), "a-1", events, BEGAN))
    for part in ("record 0:0", "record 0:4", "saga COMPLETED", "key key-a-1", "task order_process"):
        assert part in text
    for part in (
        "outbox row 0",
        "order service at 1.000: create",
        "mail at 2.000",
        "worker killed",
    ):
        assert part in text
    assert "much later" not in text
