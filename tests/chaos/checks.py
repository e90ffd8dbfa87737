"""The promises, held against the evidence. No input or output here.

Each check gives how many things it looked at and what it found wrong. What the log of the input
topic says is the truth that everything else is compared with.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from streamapp.pipeline.dead_letter import PREFIX
from tests.chaos.evidence import NUMBER, Evidence, Kind, Logged, Row, Sent, Violation

ENDED = frozenset({"COMPLETED", "COMPENSATED", "STUCK"})
UNDONE = frozenset({"COMPENSATED", "STUCK"})
# What a customer is told whose message was undone, in the program's own words.
APOLOGY = (
    "We are sorry: we could not carry out what you asked for. "
    "Our team knows of it and will look into it."
)
# Whether what is said is the apology, by how the saga ended; of any other nothing is said.
ALLOWED = {"COMPLETED": {False}, "COMPENSATED": {True}}


@dataclass(frozen=True, slots=True)
class First:
    """The first record of a message: where it is in the log decides its turn."""

    sent: Sent
    partition: int
    offset: int


class Case:
    """The evidence, indexed."""

    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence

    @cached_property
    def logged(self) -> dict[int, list[Logged]]:
        """Records of the input topic by what was sent."""
        found: defaultdict[int, list[Logged]] = defaultdict(list)
        for record in self.evidence.log:
            found[int(record.header(NUMBER))].append(record)
        return found

    @cached_property
    def firsts(self) -> dict[str, First]:
        """Every valid id in the log."""
        firsts: dict[str, First] = {}
        for number, records in self.logged.items():
            sent = self.evidence.sent[number]
            if sent.kind is Kind.BAD:
                continue
            for record in records:
                known = firsts.get(sent.processing_id)
                if known is None or record.offset < known.offset:
                    firsts[sent.processing_id] = First(sent, record.partition, record.offset)
        return firsts

    @cached_property
    def sagas(self) -> dict[str, Row]:
        return {row["processing_id"]: row for row in self.evidence.sagas}

    @cached_property
    def by_sequence(self) -> dict[tuple[str, int], str]:
        """Ids by lead and number within it."""
        return {(f.sent.lead, f.sent.seq): id_ for id_, f in self.firsts.items()}

    @cached_property
    def by_key(self) -> dict[str, Row]:
        """Steps of the journal by their idempotency key."""
        return {row["key"]: row for row in self.evidence.steps if row["key"]}

    def status(self, processing_id: str) -> str:
        saga = self.sagas.get(processing_id)
        return saga["status"] if saga else "none"

    def with_status(self, *statuses: str, kinds: Iterable[Kind] = tuple(Kind)) -> list[str]:
        """Valid ids whose saga ended so."""
        return [
            id_
            for id_, first in self.firsts.items()
            if self.status(id_) in statuses and first.sent.kind in kinds
        ]


Check = Callable[[Case], tuple[int, list[Violation]]]


def _grouped(rows: Iterable[Row], name: str) -> dict[Any, list[Row]]:
    groups: defaultdict[Any, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row[name]].append(row)
    return groups


def check_log(case: Case) -> tuple[int, list[Violation]]:
    """The stream itself: what the broker confirmed is in the log."""
    missing = case.evidence.acknowledged - case.logged.keys()
    return len(case.evidence.log), [
        Violation("lost", f"record {number} was confirmed and is not in the log")
        for number in sorted(missing)
    ]


def check_sagas(case: Case) -> tuple[int, list[Violation]]:
    """Every valid id ends in one saga, taken from its first record."""
    found = []
    for id_, first in case.firsts.items():
        saga = case.sagas.get(id_)
        if saga is None:
            found.append(Violation("lost", f"{id_} has no saga", (id_,)))
            continue
        status = saga["status"]
        if status not in ENDED:
            found.append(Violation("lost", f"{id_} did not end: {status}", (id_,)))
        if (saga["partition"], saga["offset"]) != (first.partition, first.offset):
            text = f"{id_} was taken from offset {saga['offset']}, not from {first.offset}"
            found.append(Violation("out of order", text, (id_,)))
        if saga["run"] != 0:
            found.append(Violation("doubled", f"{id_} is at run {saga['run']}", (id_,)))
        if first.sent.kind is Kind.OTHER and status in UNDONE:
            text = f"{id_} needs no service and was undone: {saga['reason']}"
            found.append(Violation("wrong", text, (id_,)))
        if first.sent.kind is Kind.REJECTED and status == "COMPLETED":
            found.append(Violation("wrong", f"{id_} completed a refused order", (id_,)))
        if first.sent.kind is Kind.ORDER and saga["reason"] == "step_rejected":
            found.append(Violation("wrong", f"{id_} counts as rejected and was not", (id_,)))
    for id_ in case.sagas.keys() - case.firsts.keys():
        found.append(Violation("wrong", f"a saga without a valid record: {id_}", (id_,)))
    return len(case.firsts), found


def check_tasks(case: Case) -> tuple[int, list[Violation]]:
    """Tasks: one of a type for a message, open where it completed, cancelled where undone."""
    found = []
    by_id = _grouped(case.evidence.tasks, "processing_id")
    for id_, rows in by_id.items():
        if id_ not in case.firsts:
            found.append(Violation("wrong", f"tasks of an unknown message: {id_}", (id_,)))
        for type_, same in _grouped(rows, "task_type").items():
            if len(same) > 1:
                text = f"{id_} has {len(same)} tasks {type_}"
                found.append(Violation("doubled", text, (id_,)))
        undone = case.status(id_) == "COMPENSATED"
        for row in rows:
            if (row["status"] == "cancelled") != undone and case.status(id_) != "STUCK":
                text = f"{id_} is {case.status(id_)}, its task {row['task_type']} {row['status']}"
                found.append(Violation("wrong", text, (id_,)))
    for id_ in case.with_status(*ENDED):
        types = {row["task_type"] for row in by_id.get(id_, ())}
        order = case.firsts[id_].sent.kind is not Kind.OTHER
        if not types or (order and "order_processing" not in types):
            found.append(Violation("lost", f"{id_} has no task, or none for its order", (id_,)))
    return len(case.evidence.tasks), found


def check_orders(case: Case) -> tuple[int, list[Violation]]:
    """The order service: one key for a message, its bytes the same, the net effect right."""
    found = []
    keys: defaultdict[str, set[str]] = defaultdict(set)
    bodies: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    created: defaultdict[str, int] = defaultdict(int)
    for request in case.evidence.requests:
        bodies[request.operation, request.key].add(request.body)
        if request.operation == "create":
            keys[request.processing_id].add(request.key)
            if request.key not in case.by_key:
                text = f"{request.processing_id}: its key {request.key} is not in the journal"
                found.append(Violation("wrong", text, (request.processing_id,)))
    for effect in case.evidence.effects:
        created[effect.processing_id] += effect.effect == "created"
    for id_, several in keys.items():
        if len(several) > 1:
            found.append(
                Violation("doubled", f"{id_} was ordered under {len(several)} keys", (id_,))
            )
    for id_, count in created.items():
        if count > 1:
            found.append(Violation("doubled", f"{id_} was created {count} times", (id_,)))
    for (operation, key), hashes in bodies.items():
        if len(hashes) > 1:
            text = f"{operation} {key} came with {len(hashes)} different contents"
            step = case.by_key.get(key)
            found.append(Violation("wrong", text, (step["processing_id"],) if step else ()))
    for id_ in case.with_status("COMPLETED", kinds=(Kind.ORDER, Kind.REJECTED)):
        if not keys[id_] & case.evidence.active:
            found.append(Violation("lost", f"{id_} is completed, its order does not stand", (id_,)))
    for id_ in case.with_status("COMPENSATED"):
        if keys[id_] & case.evidence.active:
            found.append(Violation("wrong", f"{id_} was undone, its order still stands", (id_,)))
    return len(case.evidence.requests), found


def check_mails(case: Case) -> tuple[int, list[Violation]]:
    """Mails: each that the journal calls sent was taken in; repetitions have one Message-ID."""
    found = []
    taken: defaultdict[str, set[str]] = defaultdict(set)
    for mail in case.evidence.mails:
        if mail.key not in case.by_key:
            found.append(Violation("wrong", f"a mail under a key of nobody: {mail.key}"))
        if mail.accepted:
            taken[mail.key].add(mail.message_id)
    for key, step in case.by_key.items():
        id_ = step["processing_id"]
        if step["sub_step"] != "email":
            continue
        if step["status"] == "DONE" and not taken[key]:
            found.append(Violation("lost", f"{id_}: its mail was never taken in", (id_,)))
        if len(taken[key]) > 1:
            found.append(Violation("doubled", f"{id_}: mails with different ids", (id_,)))
    return len(case.evidence.mails), found


def check_outbound(case: Case) -> tuple[int, list[Violation]]:
    """Replies: one message for a completed saga, the apology for a compensated one and nothing
    else; what comes again is the same, byte for byte."""
    found = []
    values: defaultdict[str, set[bytes]] = defaultdict(set)
    for record in case.evidence.outbound:
        value = record.value or b""
        values[json.loads(value)["in_reply_to"]].add(value)
    for id_, different in values.items():
        if len(different) > 1:
            text = f"{id_} was answered with {len(different)} different messages"
            found.append(Violation("doubled", text, (id_,)))
        status = case.status(id_)
        apologies = {json.loads(value).get("text") == APOLOGY for value in different}
        if apologies != ALLOWED.get(status):
            text = f"{id_} is {status} and was told {'otherwise' if status in ALLOWED else 'so'}"
            found.append(Violation("wrong", text, (id_,)))
    for id_ in case.with_status(*ALLOWED):
        if id_ not in values:
            text = f"{id_} is {case.status(id_)} and was not answered"
            found.append(Violation("lost", text, (id_,)))
    return len(case.evidence.outbound), found


Place = tuple[int, int, str]  # partition, offset, action


def _expected_letters(case: Case) -> dict[Place, tuple[Logged, str]]:
    """Where dead letters must come from, with the record and the message's id."""
    expected: dict[Place, tuple[Logged, str]] = {}
    at = {(record.partition, record.offset): record for record in case.evidence.log}
    for (partition, offset), record in at.items():
        if case.evidence.sent[int(record.header(NUMBER))].kind is Kind.BAD:
            expected[partition, offset, ""] = (record, "")
    for id_, saga in case.sagas.items():
        place = (saga["partition"], saga["offset"])
        if saga["status"] in UNDONE and place in at:
            expected[*place, ""] = (at[place], id_)
    for step in case.evidence.steps:
        step_saga = case.sagas.get(step["processing_id"])
        if step_saga is None or step["status"] != "FAILED" or step["direction"] != "forward":
            continue
        place = (step_saga["partition"], step_saga["offset"])
        # A step that fails in a completed saga was a best-effort one: a letter of its own.
        if step_saga["status"] == "COMPLETED" and place in at:
            expected[*place, step["action"]] = (at[place], step["processing_id"])
    return expected


def _place(letter: Logged) -> Place:
    _, partition, offset, _ = letter.header(PREFIX + "origin").rsplit(":", 3)
    return int(partition), int(offset), letter.header(PREFIX + "action")


def check_letters(case: Case) -> tuple[int, list[Violation]]:
    """Dead letters: of what was bad or undone and of nothing else, with the record's own bytes."""
    found = []
    expected = _expected_letters(case)
    seen: defaultdict[Place, list[Logged]] = defaultdict(list)
    for letter in case.evidence.letters:
        seen[_place(letter)].append(letter)
    for place, letters in seen.items():
        if place not in expected:
            text = f"dead letter of {place}, {letters[0].header(PREFIX + 'reason')}, for no reason"
            id_ = letters[0].header(PREFIX + "processing_id")
            found.append(Violation("wrong", text, (id_,) if id_ else ()))
            continue
        record, id_ = expected[place]
        for letter in letters:
            kept = tuple(pair for pair in letter.headers if not pair[0].startswith(PREFIX))
            if (letter.key, letter.value, kept) != (record.key, record.value, record.headers):
                text = f"the dead letter of {place} differs from its record"
                found.append(Violation("wrong", text, (id_,) if id_ else ()))
        if len({letter.header(PREFIX + "id") for letter in letters}) > 1:
            text = f"the dead letters of {place} have different ids"
            found.append(Violation("doubled", text, (id_,) if id_ else ()))
    for place, (_, id_) in expected.items():
        if place not in seen:
            text = f"no dead letter of {place}"
            found.append(Violation("lost", text, (id_,) if id_ else ()))
    return len(case.evidence.letters), found


def check_letter_table(case: Case) -> tuple[int, list[Violation]]:
    """The table of dead letters: each once, with the record's own bytes."""
    found = []
    expected = _expected_letters(case)
    rows: defaultdict[Place, list[Row]] = defaultdict(list)
    for row in case.evidence.dead_letters:
        rows[row["partition"], row["offset"], row["action"]].append(row)
    for place, same in rows.items():
        if place not in expected:
            found.append(Violation("wrong", f"row of a dead letter for no reason: {place}"))
            continue
        record, id_ = expected[place]
        ids = (id_,) if id_ else ()
        if len(same) > 1:
            found.append(Violation("doubled", f"{len(same)} rows of {place}", ids))
        for row in same:
            if (row["original_key"], row["original_value"]) != (record.key, record.value):
                found.append(Violation("wrong", f"the row of {place} differs from its record"))
    for place, (_, id_) in expected.items():
        if place not in rows:
            ids = (id_,) if id_ else ()
            found.append(Violation("lost", f"no row of the dead letter of {place}", ids))
    return len(case.evidence.dead_letters), found


def summary(violations: Sequence[Violation]) -> str:
    """The last line of a run."""
    count = Counter(violation.kind for violation in violations)
    parts = [f"{count[kind]} {kind}" for kind in ("lost", "doubled", "out of order")]
    parts += [f"{count['wrong']} otherwise wrong"] if count["wrong"] else []
    parts += [f"{count['no progress']} without progress"] if count["no progress"] else []
    parts += ["shows nothing"] if count["shows nothing"] else []
    return ", ".join(parts)
