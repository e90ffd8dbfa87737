"""``streamapp explain``: what would be done with messages, and why. Nothing is done."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import click

from streamapp.actions.planner import plan_for_error
from streamapp.cli.running import load_settings, planner
from streamapp.observability.masking import mask
from streamapp.pipeline import json_document
from streamapp.pipeline.messages import AIError, AIResult, InvalidPayload, decode
from streamapp.pipeline.outcomes import Reason, Record
from streamapp.saga.model import Plan
from streamapp.settings import PREFIX, Settings

PLAN = "plan"
DEAD_LETTER = "dead_letter"

_CHUNK = 65_536
_LINE_END = 2  # bytes of a Windows line end, which do not count against the payload


@dataclass(slots=True)
class Explanation:
    """What would become of one line; the fields are those of ``--json``."""

    line: int
    outcome: str
    reason: str | None = None
    error: str | None = None
    processing_id: str | None = None
    lead_id: str | None = None
    business_id: str | None = None
    tenant_id: str | None = None
    intent: str | None = None
    confidence: float | None = None
    handler: str | None = None
    actions: list[str] = field(default_factory=list)  # in the handler's own order
    suggested: list[str] = field(default_factory=list)  # those of them that the AI proposed
    steps: list[str] = field(default_factory=list)  # in the order of execution
    escalate: bool = False
    metadata: dict[str, Any] = field(default_factory=dict)
    reply: str | None = None
    why: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


class Explainer:
    """Goes the pipeline's way up to the plan, without broker, database and services."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._planner = planner(settings)

    def explain(self, line: int, value: bytes) -> Explanation:
        """Explain one record value; its key is taken to be the payload's ``lead_id``."""
        # Position and time of a record that does not exist; nothing that is shown depends on it.
        record = Record(self._settings.input_topic, 0, line - 1, 0, _key(value), value)
        try:
            decoded = decode(record, max_payload_bytes=self._settings.max_payload_bytes)
        except InvalidPayload as error:
            return Explanation(
                line,
                DEAD_LETTER,
                reason=Reason.INVALID_PAYLOAD.value,
                error=str(error),
                processing_id=error.processing_id,
            )
        if isinstance(decoded, AIError):
            return self._error(line, decoded)
        try:
            return self._result(line, decoded)
        except Exception as error:  # as the pipeline does with whatever a handler raises
            return Explanation(
                line,
                DEAD_LETTER,
                reason=Reason.HANDLER_ERROR.value,
                error=f"{type(error).__name__}: {error}",
                processing_id=decoded.processing_id,
                lead_id=decoded.lead_id,
            )

    def _result(self, line: int, result: AIResult) -> Explanation:
        allowed = self._settings.suggested_actions
        message = result.message(result.tenant_id or "")
        plan, routed = self._planner.plan(message, result.suggested_actions)
        why = list(routed.decision.why)
        if result.suggested_actions and not allowed:
            why.append(f"suggestions of the AI are not used: {PREFIX}SUGGESTED_ACTIONS is off")
        if routed.unknown_suggestions:
            why.append(f"suggested by the AI but not known: {routed.unknown_suggestions}")
        if result.tenant_id is None:
            why.append("tenant_id is missing: it would be looked up by lead and business")
        explanation = _of_plan(line, plan, why)
        explanation.processing_id = result.processing_id
        explanation.lead_id = result.lead_id
        explanation.business_id = result.business_id
        explanation.tenant_id = result.tenant_id
        explanation.intent = result.intent
        explanation.confidence = result.confidence
        explanation.suggested = list(routed.suggested)
        return explanation

    def _error(self, line: int, error: AIError) -> Explanation:
        plan = plan_for_error(error.error_type, error.error_message)
        explanation = _of_plan(line, plan, ["an error of the AI: kept in the lead's history"])
        explanation.lead_id = error.lead_id
        explanation.business_id = error.business_id
        explanation.tenant_id = error.tenant_id
        return explanation

    def too_long(self, line: int) -> Explanation:
        """A line that was not even read to its end."""
        return Explanation(
            line,
            DEAD_LETTER,
            reason=Reason.INVALID_PAYLOAD.value,
            error=f"the value has more than {self._settings.max_payload_bytes} bytes",
        )


def _of_plan(line: int, plan: Plan, why: list[str]) -> Explanation:
    return Explanation(
        line,
        PLAN,
        handler=plan.handler,
        actions=list(plan.actions),
        steps=[step.name for step in plan.steps],
        escalate=plan.escalate,
        metadata=plan.metadata,
        reply=plan.reply,
        why=why,
    )


def _key(value: bytes) -> bytes:
    """The ``lead_id`` of a value where one can be read; else a key that fits no lead."""
    try:
        document, _ = json_document.load(value)
    except json_document.NotJson:
        return b""
    for body in (_member(document, "payload"), document):
        lead_id = _member(body, "lead_id")
        if isinstance(lead_id, str):
            return lead_id.encode(errors="replace")
    return b""


def _member(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


class _Unreadable(Exception):
    """The input cannot be read."""


def _lines(stream: BinaryIO, limit: int) -> Iterator[bytes | None]:
    """The lines of a stream without their ends; None for one of more than ``limit`` bytes,
    of which no more than that is ever held."""
    while True:
        try:
            line = stream.readline(limit + _LINE_END)
            whole = line.endswith(b"\n")
            if not whole and len(line) == limit + _LINE_END:
                rest = stream.readline(_CHUNK)
                while rest and not rest.endswith(b"\n"):
                    rest = stream.readline(_CHUNK)
        except OSError as error:
            raise _Unreadable(error.strerror or str(error)) from error
        if not line:
            return
        value = line.removesuffix(b"\n").removesuffix(b"\r")
        yield value if len(value) <= limit else None


def _open(file: str) -> AbstractContextManager[BinaryIO]:
    if file == "-":
        return nullcontext(click.get_binary_stream("stdin"))
    try:
        return Path(file).open("rb")
    except OSError as error:
        raise _Unreadable(error.strerror or str(error)) from error


@click.command()
@click.argument("file", metavar="FILE|-")
@click.option("--json", "as_json", is_flag=True, help="One JSON object for each line.")
def explain(file: str, as_json: bool) -> None:
    """Tell what would be done with messages, and why.

    FILE holds one message a line, as in the input topic ("-": standard input). Nothing is done
    and neither broker nor database is needed. The text view hides phone numbers and e-mail
    addresses; --json does not.
    """
    settings = load_settings()
    explainer = Explainer(settings)
    try:
        with _open(file) as stream:
            for line, value in enumerate(_lines(stream, settings.max_payload_bytes), start=1):
                found = (
                    explainer.too_long(line) if value is None else explainer.explain(line, value)
                )
                click.echo(json.dumps(found.as_json()) if as_json else _text(found))
    except _Unreadable as error:
        click.echo(f"{file} cannot be read: {error}", err=True)
        sys.exit(1)


def _text(found: Explanation) -> str:
    title = f"line {found.line}"
    if found.processing_id is not None:
        title += f": {found.processing_id}"
    rows = [("outcome", _outcome(found))]
    if found.outcome == PLAN:
        lead = ", ".join(
            f"{name} {value}"
            for name, value in (
                ("lead", found.lead_id),
                ("business", found.business_id),
                ("tenant", found.tenant_id),
            )
            if value is not None
        )
        rows += [("for", lead), ("handler", found.handler or "")]
        if found.intent is not None:
            rows.append(("intent", f"{mask(found.intent)} ({found.confidence:g})"))
        actions = [
            f"{action} (suggested)" if action in found.suggested else action
            for action in found.actions
        ]
        rows += [
            ("actions", ", ".join(actions)),
            ("steps", ", ".join(found.steps)),
            ("escalate", "yes" if found.escalate else "no"),
        ]
        rows += [(name, _masked(name, value)) for name, value in found.metadata.items()]
        rows.append(("reply", "none" if found.reply is None else mask(found.reply)))
    rows += [("because", mask(reason)) for reason in found.why]
    return "\n".join(
        [_printable(title), *(f"  {name:<10} {_printable(row)}" for name, row in rows)]
    )


def _outcome(found: Explanation) -> str:
    if found.outcome == PLAN:
        return PLAN
    return f"{found.outcome}: {found.reason} ({mask(found.error or '')})"


def _masked(name: str, value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if name.endswith("_id") else mask(text)


def _printable(text: str) -> str:
    """Without what could steer a terminal, and what standard output cannot encode."""
    shown = "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text
    )
    encoding = sys.stdout.encoding or "utf-8"
    return shown.encode(encoding, "backslashreplace").decode(encoding)
