"""Tells what happened, and leaves behind what is needed to find a violation's cause."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from tests.chaos.checks import Case, summary
from tests.chaos.evidence import NUMBER, Event, Evidence, Kind, Violation

SHOWN = 20  # violations on the screen; the file has all of them
_NEAR = 15.0  # seconds around what happened to a message in which faults are of interest


def show(case: Case, looked_at: Mapping[str, tuple[int, int]]) -> None:
    """The summary: what was there, and for each check how much it looked at and found."""
    evidence = case.evidence
    kinds = Counter(sent.kind for sent in evidence.sent.values())
    statuses = Counter(str(row["status"]) for row in evidence.sagas)
    reasons = Counter(str(row["reason"]) for row in evidence.sagas if row["reason"])
    outcomes = Counter(f"{r.operation} {r.outcome}" for r in evidence.requests)
    mails = Counter(mail.key for mail in evidence.mails if mail.accepted)
    repeated = sum(count - 1 for count in mails.values())
    _line("records sent", _counts(kinds))
    distinct = sum(first.sent.kind is not Kind.BAD for first in case.firsts.values())
    _line("distinct valid messages", str(distinct))
    _line("sagas", _counts(statuses))
    _line("why undone", _counts(reasons))
    _line("order service", _counts(outcomes))
    _line("mails", f"{len(mails)} delivered, {repeated} times one more than once")
    _line("replies published", f"{len(evidence.outbound)}, of {statuses['COMPLETED']} completed")
    print()
    for name, (count, found) in looked_at.items():
        print(f"  {name:<40} {count:>8} looked at  {found or 'no':>4} violations")
    print()


def _line(name: str, text: str) -> None:
    print(f"  {name:<24} {text}")


def _counts(counter: Mapping[Any, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counter.items())) or "none"


def show_violations(
    case: Case, violations: Sequence[Violation], events: Sequence[Event], began: datetime
) -> None:
    """The first violations with all that is known of their messages."""
    for violation in violations[:SHOWN]:
        print(f"{violation.kind.upper()}: {violation.text}")
        for id_ in violation.ids:
            for line in dossier(case, id_, events, began):
                print(f"    {line}")
    if len(violations) > SHOWN:
        print(f"... and {len(violations) - SHOWN} more")


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


def write_files(
    directory: Path,
    case: Case,
    violations: Sequence[Violation],
    events: Sequence[Event],
    began: datetime,
) -> None:
    """Everything that is known, one JSON object a line, for whoever looks for a cause."""
    evidence: Evidence = case.evidence
    _write(directory / "events.jsonl", events)
    _write(directory / "order-service.jsonl", evidence.requests)
    _write(directory / "mail-server.jsonl", evidence.mails)
    if not violations:
        return
    for name in ("log", "sagas", "steps", "tasks", "activities", "outbox", "outbound", "letters"):
        _write(directory / f"{name}.jsonl", getattr(evidence, name))
    ids = {id_ for violation in violations for id_ in violation.ids}
    with (directory / "violations.txt").open("w") as file:
        print(summary(violations), file=file)
        for violation in violations:
            print(f"{violation.kind}: {violation.text}", file=file)
        for id_ in sorted(ids):
            print("", *dossier(case, id_, events, began), sep="\n", file=file)


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
