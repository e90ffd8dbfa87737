"""Whether the effects of one lead happened in the order of the log, wherever one can see it."""

from __future__ import annotations

import json
from collections.abc import Iterable

from tests.chaos.checks import (
    Case,
    Check,
    check_letter_table,
    check_letters,
    check_log,
    check_mails,
    check_orders,
    check_outbound,
    check_sagas,
    check_tasks,
)
from tests.chaos.evidence import Violation


def _disorder(case: Case, what: str, ids: Iterable[str | None]) -> tuple[int, list[Violation]]:
    """``ids`` in the order of what happened; each lead's must be in the order of the log."""
    found = []
    latest: dict[str, str] = {}
    count = 0
    for id_ in ids:
        first = case.firsts.get(id_ or "")
        if id_ is None or first is None:
            continue  # of nobody: told by another check
        count += 1
        before = latest.get(first.sent.lead)
        if before is not None and first.offset < case.firsts[before].offset:
            text = f"{what} of {id_} came after that of {before}, which is later in the log"
            found.append(Violation("out of order", text, (id_, before)))
        else:
            latest[first.sent.lead] = id_
    return count, found


def _once(keys: Iterable[tuple[str, str | None]]) -> Iterable[str | None]:
    """The ids of the first occurrences; keys may come again at any time."""
    seen = set()
    for key, id_ in keys:
        if key not in seen:
            seen.add(key)
            yield id_


def requests_in_order(case: Case) -> tuple[int, list[Violation]]:
    """First requests to create an order."""
    creations = (r for r in case.evidence.requests if r.operation == "create")
    return _disorder(case, "the first request", _once((r.key, r.processing_id) for r in creations))


def orders_in_order(case: Case) -> tuple[int, list[Violation]]:
    """Orders as they came to be."""
    created = (e.processing_id for e in case.evidence.effects if e.effect == "created")
    return _disorder(case, "the order", created)


def mails_in_order(case: Case) -> tuple[int, list[Violation]]:
    """First deliveries of mails."""
    taken = (mail.key for mail in case.evidence.mails if mail.accepted)
    steps = ((key, case.by_key.get(key)) for key in taken)
    ids = _once((key, step["processing_id"] if step else None) for key, step in steps)
    return _disorder(case, "the mail", ids)


def tasks_in_order(case: Case) -> tuple[int, list[Violation]]:
    """Tasks, by the time of their transaction."""
    rows = sorted(case.evidence.tasks, key=lambda row: row["created_at"])
    return _disorder(case, "a task", (row["processing_id"] for row in rows))


def activities_in_order(case: Case) -> tuple[int, list[Violation]]:
    """Rows of a lead's history, by the time of their transaction."""
    rows = sorted(case.evidence.activities, key=lambda row: row["created_at"])
    ids = (case.by_sequence.get((row["lead_id"], row["seq"])) for row in rows)
    return _disorder(case, "an activity", ids)


def outbox_in_order(case: Case) -> tuple[int, list[Violation]]:
    """Replies, by the id of their outbox row."""
    rows = sorted(case.evidence.outbox, key=lambda row: row["id"])
    return _disorder(case, "the outbox row", _in_turn(case, (row["in_reply_to"] for row in rows)))


def replies_in_order(case: Case) -> tuple[int, list[Violation]]:
    """First publications of replies, within their partition."""
    values = (json.loads(record.value or b"{}") for record in case.evidence.outbound)
    ids = _once((value["message_id"], value["in_reply_to"]) for value in values)
    return _disorder(case, "the reply", _in_turn(case, ids))


def _in_turn(case: Case, ids: Iterable[str | None]) -> Iterable[str | None]:
    """Without sagas that were stuck: they let others pass, and apologise when they are undone."""
    return (id_ for id_ in ids if not case.sagas.get(id_ or "", {}).get("stuck_retries"))


def sagas_in_turn(case: Case) -> tuple[int, list[Violation]]:
    """A message begins when the one before it has ended. Sagas that were stuck let others pass."""
    found = []
    before: dict[str, str] = {}
    turns = sorted(case.firsts.items(), key=lambda item: (item[1].partition, item[1].offset))
    for id_, first in turns:
        saga = case.sagas.get(id_)
        if saga is None:
            continue
        earlier = case.sagas.get(before.get(first.sent.lead, ""))
        if (
            earlier is not None
            and earlier["status"] != "STUCK"
            and earlier["stuck_retries"] == 0
            and earlier["finished_at"] is not None
            and saga["created_at"] < earlier["finished_at"]
        ):
            text = f"{id_} began before {earlier['processing_id']} had ended"
            found.append(Violation("out of order", text, (id_, earlier["processing_id"])))
        before[first.sent.lead] = id_
    return len(turns), found


CHECKS: dict[str, Check] = {
    "records in the log": check_log,
    "valid ids, one ended saga each": check_sagas,
    "tasks": check_tasks,
    "requests to the order service": check_orders,
    "mails": check_mails,
    "records on the outbound topic": check_outbound,
    "records on the dead-letter topic": check_letters,
    "rows of the dead-letter table": check_letter_table,
    "order: sagas of a lead in turn": sagas_in_turn,
    "order: first requests": requests_in_order,
    "order: orders as created": orders_in_order,
    "order: mails": mails_in_order,
    "order: tasks": tasks_in_order,
    "order: activities": activities_in_order,
    "order: outbox rows": outbox_in_order,
    "order: replies published": replies_in_order,
}
