"""``streamapp actions``: what a handler can ask for, and what becomes of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from streamapp.actions.base import StepDraft
from streamapp.cli.running import catalogue, json_option, print_json, print_table
from streamapp.extensions import ACTIONS
from streamapp.intents.registry import REVIEW


@click.group()
def actions() -> None:
    """Look at the actions."""


@actions.command("list")
@json_option
def list_(as_json: bool) -> None:
    """Every action in the order of execution: its steps where no service is configured, and
    where all are; who asks for it."""
    rows = known_actions()
    if as_json:
        print_json(rows)
        return
    columns = ("action", "phase", "required", "alone", "with_services", "intents", "package")
    print_table(
        columns,
        [
            [
                ", ".join(row[column]) if isinstance(row[column], list) else _word(row[column])
                for column in columns
            ]
            for row in rows
        ],
    )


def known_actions() -> list[dict[str, Any]]:
    """One object for each action.

    ``alone`` and ``with_services`` name the executors of its steps, ``services`` those of them
    that are called.
    """
    known = catalogue()
    registry, intents = known.actions, known.intents
    rows = []
    for name in sorted(registry.names, key=lambda name: (registry.phase(name), name)):
        alone, all_ = registry.trial(name), registry.trial(name, registry.services)
        used = {
            service
            for service in registry.services
            if _shape(registry.trial(name, registry.services - {service})) != _shape(all_)
        }
        rows.append(
            {
                "action": name,
                "phase": registry.phase(name).name.lower(),
                "required": any(draft.required for draft in alone),
                "alone": [draft.executor for draft in alone],
                "with_services": [draft.executor for draft in all_],
                "services": sorted(used),
                "intents": [
                    handler.intent
                    for handler in intents.handlers
                    if name in handler.emits or name == REVIEW
                ],
                "package": known.package(ACTIONS, name),
            }
        )
    return rows


def _shape(drafts: Sequence[StepDraft]) -> list[tuple[str, str]]:
    return [(draft.executor, draft.sub_step) for draft in drafts]


def _word(value: object) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)
