"""An explanation for people: names and values, a line each, in colours where there are some."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from streamapp.cli.explaining import DEAD_LETTER, PLAN, Explanation
from streamapp.observability.masking import mask

_COLOURS = {DEAD_LETTER: "red", PLAN: "green"}


def text_of(found: Explanation) -> str:
    """Phone numbers and e-mail addresses are hidden; ids are not."""
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
            limits = ", ".join(f"{name} {value:g}" for name, value in found.thresholds.items())
            rows.append(("intent", f"{mask(found.intent)} ({found.confidence:g}; {limits})"))
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
        rows += [("why", mask(f"{action}: {why}")) for action, why in found.reasons.items()]
        if found.switched_off:
            rows.append(("off", f"{', '.join(found.switched_off)} (switched off by the business)"))
        rows += [("does", mask(f"{step}: {what}")) for step, what in found.calls.items()]
        rows.append(("reply", "none" if found.reply is None else mask(found.reply)))
        if found.reply_from is not None:
            rows.append(("words", f"the reply begins with {found.reply_from}"))
        if found.apology is not None:
            rows.append(("if undone", mask(found.apology)))
    rows += [("because", mask(reason)) for reason in found.why]
    colour = "yellow" if found.duplicate else _COLOURS[found.outcome]
    lines = [click.style(_printable(title), bold=True)]
    for name, row in rows:
        shown = _printable(row)
        if name == "outcome":
            shown = click.style(shown, fg=colour)
        lines.append(f"  {click.style(f'{name:<10}', fg='cyan')} {shown}")
    return "\n".join(lines)


def _outcome(found: Explanation) -> str:
    if found.outcome == PLAN:
        return f"{PLAN} (duplicate: nothing would be done)" if found.duplicate else PLAN
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
