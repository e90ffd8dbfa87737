"""What the code at hand would do otherwise than what was recorded. Pure: nothing is done.

Each message is planned again and compared with the plan in its saga. A difference is told by its
kind and what it is about, so that a thousand messages that changed in the same way are one line.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from streamapp.actions.base import Capabilities
from streamapp.actions.planner import plan_for_error
from streamapp.actions.registry import REPLY
from streamapp.observability.masking import mask
from streamapp.pipeline.messages import AIError, AIResult, InvalidPayload, decode
from streamapp.pipeline.outcomes import Reason, Record
from streamapp.pipeline.planning import Planner
from streamapp.saga.model import PLAN_VERSION
from streamapp.saga.serialization import plan_to_json

SHOWN = 120  # characters of a value in an example
_BEFORE = 30  # of these, those before the first difference
_EXACT_DIGITS = 15  # a longer whole number may have been a float on its way to the database

Json = dict[str, Any]
Place = tuple[int, int]  # partition, offset


class Kind(StrEnum):
    """Kinds of change, the gravest first."""

    DEAD_LETTERED = "now dead-lettered"
    NOT_DEAD_LETTERED = "no longer dead-lettered"
    HANDLER = "handler changed"
    ACTION_ADDED = "action added"
    ACTION_REMOVED = "action removed"
    REORDERED = "actions reordered"
    STEPS = "steps of an action changed"
    PARAMETERS = "parameters changed"
    REPLY = "reply changed"
    APOLOGY = "apology changed"
    ESCALATION = "escalation changed"
    METADATA = "metadata changed"


class Apart(StrEnum):
    """Why a record is not compared."""

    DUPLICATE = "duplicate of another record"
    NOTHING_RECORDED = "nothing recorded: not worked off yet, or deleted by retention"
    NOT_PLANNED = "dead-lettered for what is no matter of planning"
    UNREADABLE = "its plan has a form of another version"


@dataclass(frozen=True, slots=True)
class Recorded:
    """What the database knows of a record: its saga's plan, or the reason of its dead letter.

    ``duplicate``: the saga of its id is another record's.
    """

    plan: Json | None = None
    run: int = 0
    tenant_id: str = ""
    duplicate: bool = False
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """One difference. ``before`` and ``after`` are for people: masked, and shortened."""

    kind: Kind
    subject: str
    before: str = ""
    after: str = ""


@dataclass(slots=True)
class Group:
    """Changes of one kind that are about the same."""

    kind: Kind
    subject: str
    count: int = 0
    examples: list[Json] = field(default_factory=list)


class Rehearsal:
    """Counts what would change, with a few examples of each."""

    def __init__(self, planner: Planner, *, examples: int) -> None:
        self._planner = planner
        self._examples = examples
        self._groups: dict[tuple[Kind, str], Group] = {}
        self.read = 0
        self.compared = 0
        self.changed = 0
        self.apart: Counter[Apart] = Counter()

    @property
    def groups(self) -> list[Group]:
        """By kind, then by how many messages there are."""
        order = list(Kind)
        return sorted(
            self._groups.values(), key=lambda g: (order.index(g.kind), -g.count, g.subject)
        )

    def add(self, read: Read, recorded: Recorded | None, capabilities: Capabilities) -> None:
        """Take a record in; ``recorded`` is None where the database knows nothing of it.
        ``capabilities`` are those of its business."""
        self.read += 1
        apart = _apart(recorded)
        if apart is not None or recorded is None:
            self.apart[apart or Apart.NOTHING_RECORDED] += 1
            return
        self.compared += 1
        name = read.processing_id or read.record.position
        outcome = self._outcome(read, recorded, capabilities)
        changes = list(_compared(recorded, outcome))
        self.changed += bool(changes)
        for change in changes:
            key = (change.kind, change.subject)
            group = self._groups.setdefault(key, Group(*key))
            group.count += 1
            if len(group.examples) < self._examples:
                group.examples.append(
                    {"message": name, "before": change.before, "after": change.after}
                )

    def _outcome(self, read: Read, recorded: Recorded, capabilities: Capabilities) -> Json | Reason:
        """The plan, or the reason of a dead letter."""
        decoded = read.decoded
        if isinstance(decoded, InvalidPayload):
            return Reason.INVALID_PAYLOAD
        if isinstance(decoded, AIError):
            return normal(plan_to_json(plan_for_error(decoded.error_type, decoded.error_message)))
        try:
            plan, _ = self._planner.plan(
                decoded.message(recorded.tenant_id),
                capabilities,
                suggested=decoded.suggested_actions,
                suggested_response=decoded.suggested_response,
                run=recorded.run,
            )
            return normal(plan_to_json(plan))
        except Exception:  # as the pipeline does with whatever a handler raises
            return Reason.HANDLER_ERROR


@dataclass(frozen=True, slots=True)
class Read:
    """A record, and what it says."""

    record: Record
    decoded: AIResult | AIError | InvalidPayload

    @property
    def processing_id(self) -> str | None:
        """By which its saga is found; None where it has none."""
        return self.decoded.processing_id

    @property
    def business_id(self) -> str | None:
        return self.decoded.business_id if isinstance(self.decoded, AIResult) else None


def read(record: Record, *, max_payload_bytes: int) -> Read:
    """Decode a record; one that is invalid is read too."""
    try:
        return Read(record, decode(record, max_payload_bytes=max_payload_bytes))
    except InvalidPayload as error:
        return Read(record, error)


def normal(value: Json) -> Json:
    """A plan as it is when it comes back from the database."""
    found: Json = parse(json.dumps(value))
    return found


def parse(text: str) -> Any:
    """JSON in which long whole numbers are floats: the database may write either as the other."""
    return json.loads(text, parse_int=_number)


def _number(digits: str) -> int | float:
    return int(digits) if len(digits) <= _EXACT_DIGITS else float(digits)


def _apart(recorded: Recorded | None) -> Apart | None:
    if recorded is None:
        return Apart.NOTHING_RECORDED
    if recorded.duplicate:
        return Apart.DUPLICATE
    if recorded.plan is None and recorded.reason not in (
        Reason.INVALID_PAYLOAD,
        Reason.HANDLER_ERROR,
    ):
        return Apart.NOT_PLANNED
    if recorded.plan is not None and recorded.plan.get("version") != PLAN_VERSION:
        return Apart.UNREADABLE
    return None


def _compared(recorded: Recorded, outcome: Json | Reason) -> Iterator[Change]:
    if isinstance(outcome, Reason):
        if recorded.plan is not None:
            before = f"handler {recorded.plan['handler']}"
            yield Change(Kind.DEAD_LETTERED, outcome.value, before, outcome.value)
        return  # dead-lettered then and now: of the two reasons, one is as good as the other
    if recorded.plan is None:
        after = f"handler {outcome['handler']}"
        yield Change(Kind.NOT_DEAD_LETTERED, recorded.reason or "", recorded.reason or "", after)
        return
    yield from plan_changes(recorded.plan, outcome)


def plan_changes(before: Json, after: Json) -> Iterator[Change]:
    """All differences of two plans, as they are stored."""
    if before["handler"] != after["handler"]:
        subject = f"{mask(before['handler'])} to {mask(after['handler'])}"
        yield Change(Kind.HANDLER, subject, before["handler"], after["handler"])
    old, new = before["actions"], after["actions"]
    told = _listed(old), _listed(new)
    for action in new:
        if action not in old:
            yield Change(Kind.ACTION_ADDED, action, *told)
    for action in old:
        if action not in new:
            yield Change(Kind.ACTION_REMOVED, action, *told)
    if old != new and sorted(old) == sorted(new):
        yield Change(Kind.REORDERED, after["handler"], *told)
    yield from _step_changes(before["steps"], after["steps"])
    if before["reply"] != after["reply"]:
        yield Change(Kind.REPLY, after["handler"], *_shown(before["reply"], after["reply"]))
    apologies = before.get("apology"), after.get("apology")  # plans of earlier programs have none
    if apologies[0] != apologies[1]:
        yield Change(Kind.APOLOGY, after["handler"], *_shown(*apologies))
    if before["escalate"] != after["escalate"]:
        values = str(before["escalate"]).lower(), str(after["escalate"]).lower()
        yield Change(Kind.ESCALATION, after["handler"], *values)
    for name in _differing(before["metadata"], after["metadata"]):
        values = _shown(before["metadata"].get(name), after["metadata"].get(name))
        yield Change(Kind.METADATA, name, *values)


def _step_changes(before: Sequence[Json], after: Sequence[Json]) -> Iterator[Change]:
    """Differences of the actions that both plans have. The reply names other steps by their places,
    so it is compared where the actions are the same; else its text tells."""
    old, new = _by_action(before), _by_action(after)
    both = [action for action in new if action in old]
    if [action for action in old if action in new] != both:
        yield Change(Kind.REORDERED, "in execution", _listed(old), _listed(new))
    for action in both:
        if action == REPLY and list(old) != list(new):
            continue
        shapes = _shape(old[action]), _shape(new[action])
        if shapes[0] != shapes[1]:
            yield Change(Kind.STEPS, action, *shapes)
            continue
        for was, is_ in zip(old[action], new[action], strict=True):
            for name in _differing(was["params"], is_["params"]):
                sub_step = f".{is_['sub_step']}" if is_["sub_step"] else ""
                values = _shown(was["params"].get(name), is_["params"].get(name))
                yield Change(Kind.PARAMETERS, f"{action}{sub_step}: {name}", *values)


def _by_action(steps: Sequence[Json]) -> dict[str, list[Json]]:
    found: dict[str, list[Json]] = {}
    for step in steps:
        found.setdefault(step["action"], []).append(step)
    return found


def _shape(steps: Sequence[Json]) -> str:
    """How an action is carried out."""
    return ", ".join(
        f"{step['executor']} {step['version']} ({'required' if step['required'] else 'best effort'}"
        f"{', ' + step['sub_step'] if step['sub_step'] else ''}"
        f"{', suggested' if step['suggested'] else ''})"
        for step in steps
    )


def _differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    names = dict.fromkeys((*before, *after))
    return [
        name
        for name in names
        if before.get(name) != after.get(name) or (name in before) != (name in after)
    ]


def _listed(names: Sequence[str] | Mapping[str, Any]) -> str:
    return ", ".join(names)


def _shown(before: Any, after: Any) -> tuple[str, str]:
    """Two values for people: masked whole, and then cut to where they begin to differ."""
    old, new = (mask(_text(value)) for value in (before, after))
    same = 0
    for one, other in zip(old, new, strict=False):
        if one != other:
            break
        same += 1
    start = max(same - _BEFORE, 0) if max(len(old), len(new)) > SHOWN else 0
    return _cut(old, start), _cut(new, start)


def _text(value: Any) -> str:
    if value is None:
        return "none"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _cut(text: str, start: int) -> str:
    shown = text[start : start + SHOWN]
    return f"{'…' if start else ''}{shown}{'…' if start + SHOWN < len(text) else ''}"
