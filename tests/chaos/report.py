"""Tells what happened, and leaves behind what is needed to find a violation's cause."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, get_args, get_type_hints

from tests.chaos.checks import Case, summary
from tests.chaos.evidence import NUMBER, Event, Evidence, Kind, Violation
from tests.chaos.schedule import FaultKind

SHOWN = 20  # violations on the screen; the file has all of them
_TABLES = ("log", "sagas", "steps", "tasks", "activities", "outbox", "outbound", "letters")
_NEAR = 15.0  # seconds around what happened to a message in which faults are of interest

Say = Callable[[str], None]


class Report:
    """What a run found. ``planned`` and ``carried_out`` count faults by kind, ``restarts`` the
    workers that ended by themselves, ``given_up`` records of our own producer; ``waited`` is how
    long the stream waited for the workers, ``seconds`` how long all of it took."""

    def __init__(self, case: Case, events: Sequence[Event], began: datetime) -> None:
        self.case = case
        self.violations: list[Violation] = []
        self.planned: Counter[FaultKind] = Counter()
        self.carried_out: Counter[FaultKind] = Counter()
        self.restarts = 0
        self.given_up = 0
        self.waited = 0.0
        self.seconds = 0.0
        self._events = events
        self._began = began
        self._judged: dict[str, tuple[int, int]] = {}

    def add(self, violations: Iterable[Violation]) -> None:
        self.violations += violations

    def judge(self, name: str, looked_at: int, found: Sequence[Violation]) -> None:
        """The result of a check: how many things it looked at, and what was wrong with them."""
        self._judged[name] = (looked_at, len(found))
        self.add(found)

    @property
    def without_evidence(self) -> list[str]:
        """Checks that had nothing to look at."""
        return [name for name, (looked_at, _) in self._judged.items() if not looked_at]

    def messages(self) -> dict[str, int]:
        """The messages by what became of them, each figure from a source of its own: log, sagas,
        table of dead letters."""
        evidence, case = self.case.evidence, self.case
        statuses = Counter(row["status"] for row in evidence.sagas)
        bad = sum(evidence.sent[n].kind is Kind.BAD for n in case.logged for _ in case.logged[n])
        return {
            "sent": len(evidence.sent),
            "in_log": len(evidence.log),
            "distinct": len(case.firsts),
            "duplicates": len(evidence.log) - bad - len(case.firsts),
            "bad": bad,
            "processed": statuses["COMPLETED"],
            "compensated": statuses["COMPENSATED"],
            "stuck": statuses["STUCK"],
            "dead_lettered": sum(not row["action"] for row in evidence.dead_letters),
            "dead_lettered_actions": sum(bool(row["action"]) for row in evidence.dead_letters),
        }

    def counts(self) -> dict[str, int]:
        """Violations by kind."""
        count = Counter(violation.kind for violation in self.violations)
        return {kind: count[kind] for kind in get_args(get_type_hints(Violation)["kind"])}

    def show(self, say: Say) -> None:
        """The tables: messages, faults, checks, and what was found."""
        self._show_messages(say)
        self._show_services(say)
        self._show_faults(say)
        say("checks                                       looked at  violations")
        for name, (count, found) in self._judged.items():
            say(f"  {name:<40} {count:>10} {found:>11}")
        say("")
        for name, number in {**self.counts(), "stuck": self.messages()["stuck"]}.items():
            say(f"  {name:<40} {number:>10}")
        say("")
        self._show_violations(say)

    def _show_messages(self, say: Say) -> None:
        count = self.messages()
        kinds = Counter(sent.kind for sent in self.case.evidence.sent.values())
        reasons = Counter(str(row["reason"]) for row in self.case.evidence.sagas if row["reason"])
        actions = count["dead_lettered_actions"]
        notes = {
            "sent": _counts(kinds),
            "in_log": f"{count['distinct']} distinct valid messages, {count['bad']} bad records",
            "processed": "sagas that completed",
            "duplicates": "repetitions in the log; each id has one saga",
            "dead_lettered": f"rows in the table, and {actions} of single actions",
            "compensated": _counts(reasons),
            "stuck": "sagas whose compensation still fails",
        }
        say("messages")
        for name, note in notes.items():
            say(f"  {name.replace('_', '-'):<40} {count[name]:>10}  {note}")
        say("")

    def _show_services(self, say: Say) -> None:
        evidence = self.case.evidence
        outcomes = Counter(f"{r.operation} {r.outcome}" for r in evidence.requests)
        mails = Counter(mail.key for mail in evidence.mails if mail.accepted)
        repeated = sum(count - 1 for count in mails.values())
        say(f"order service: {_counts(outcomes)}")
        say(f"mails: {len(mails)} delivered, {repeated} times one more than once")
        say(f"replies published: {len(evidence.outbound)}")
        if self.waited:
            say(f"the stream waited {self.waited:.0f} s for the workers: the machine is slow")
        if self.given_up:
            say(f"given up by the producer: {self.given_up}; the log tells their fate")
        say("")

    def _show_faults(self, say: Say) -> None:
        say("faults                                         planned carried out")
        for kind in FaultKind:
            if self.planned[kind]:
                say(f"  {kind:<42} {self.planned[kind]:>8} {self.carried_out[kind]:>11}")
        absent = [kind for kind in FaultKind if not self.planned[kind]]
        if absent:
            say(f"  not planned in a run of this length: {', '.join(absent)}")
        say(f"  {'workers that ended by themselves':<42} {'':>8} {self.restarts:>11}")
        say("")

    def _show_violations(self, say: Say) -> None:
        for violation in self.violations[:SHOWN]:
            say(f"{violation.kind.upper()}: {violation.text}")
            for id_ in violation.ids:
                for line in dossier(self.case, id_, self._events, self._began):
                    say(f"    {line}")
        if len(self.violations) > SHOWN:
            say(f"... and {len(self.violations) - SHOWN} more")

    def as_json(self) -> dict[str, Any]:
        """The same as figures."""
        return {
            "messages": self.messages(),
            "faults": {
                kind: {"planned": self.planned[kind], "carried_out": self.carried_out[kind]}
                for kind in FaultKind
                if self.planned[kind]
            },
            "violations": self.counts(),
            "restarts": self.restarts,
            "seconds": round(self.seconds, 1),
        }

    def write_files(self, directory: Path) -> None:
        """Everything that is known, one JSON object a line, for whoever looks for a cause."""
        evidence: Evidence = self.case.evidence
        _write(directory / "events.jsonl", self._events)
        _write(directory / "order-service.jsonl", evidence.requests)
        _write(directory / "mail-server.jsonl", evidence.mails)
        if not self.violations:
            return
        for name in _TABLES:
            _write(directory / f"{name}.jsonl", getattr(evidence, name))
        ids = {id_ for violation in self.violations for id_ in violation.ids}
        with (directory / "violations.txt").open("w") as file:
            print(summary(self.violations), file=file)
            for violation in self.violations:
                print(f"{violation.kind}: {violation.text}", file=file)
            for id_ in sorted(ids):
                print("", *dossier(self.case, id_, self._events, self._began), sep="\n", file=file)


def _counts(counter: Mapping[Any, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counter.items())) or "none"


def dossier(case: Case, processing_id: str, events: Sequence[Event], began: datetime) -> list[str]:
    """All that is known of one message. Times are seconds since the run began."""
    evidence = case.evidence
    lines = [f"{processing_id}:"]
    times: list[float] = []

    def since(moment: datetime | None) -> str:
        if moment is None:
            return "-"
        times.append((moment - began).total_seconds())
        return f"{times[-1]:.3f}"

    for record in evidence.log:
        sent = evidence.sent[int(record.header(NUMBER))]
        if sent.processing_id == processing_id:
            lines.append(f"record {record.partition}:{record.offset} ({sent.kind}, {sent.lead})")
    saga = case.sagas.get(processing_id)
    if saga is not None:
        lines.append(
            f"saga {saga['status']} of {saga['partition']}:{saga['offset']}, epoch "
            f"{saga['epoch']}, {since(saga['created_at'])} to {since(saga['finished_at'])}, "
            f"{saga['reason']}: {saga['error']}"
        )
    for step in evidence.steps:
        if step["processing_id"] == processing_id and step["key"]:
            lines.append(
                f"step {step['action']}/{step['sub_step']} {step['direction']} {step['status']}, "
                f"key {step['key']}, {step['attempts']} attempts, in doubt {step['in_doubt']}, "
                f"{since(step['first_attempt_at'])} to {since(step['last_attempt_at'])}, "
                f"{step['error']}"
            )
    for task in evidence.tasks:
        if task["processing_id"] == processing_id:
            lines.append(f"task {task['task_type']} {task['status']} {since(task['created_at'])}")
    for row in evidence.outbox:
        if row["in_reply_to"] == processing_id:
            lines.append(f"outbox row {row['id']}, published {since(row['published_at'])}")
    for request in evidence.requests:
        if request.processing_id == processing_id:
            times.append(request.at)
            lines.append(
                f"order service at {request.at:.3f}: {request.operation} {request.key}, "
                f"{request.outcome}, {request.effect or 'no effect'} {request.effect_at or ''}"
            )
    keys = {key for key, step in case.by_key.items() if step["processing_id"] == processing_id}
    for mail in evidence.mails:
        if mail.key in keys:
            times.append(mail.at)
            lines.append(f"mail at {mail.at:.3f}: {mail.key}, {mail.outcome}")
    if times:
        low, high = min(times) - _NEAR, max(times) + _NEAR
        lines += [f"  meanwhile {e.at:.1f}: {e.text}" for e in events if low < e.at < high]
    return lines


def _write(path: Path, rows: Iterable[Any]) -> None:
    with path.open("w") as file:
        for row in rows:
            fields = asdict(row) if is_dataclass(row) and not isinstance(row, type) else dict(row)
            print(json.dumps(fields, default=_plain), file=file)


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value)
