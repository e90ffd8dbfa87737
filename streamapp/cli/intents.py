"""``streamapp intents``: what is understood, and what it can lead to."""

from __future__ import annotations

from typing import Any

import click

from streamapp.cli.running import catalogue, json_option, print_json, print_table
from streamapp.extensions import INTENTS


@click.group()
def intents() -> None:
    """Look at the intents."""


@intents.command("list")
@json_option
def list_(as_json: bool) -> None:
    """Every intent in the order in which its handler is asked, and the actions it may lead to."""
    rows = known_intents()
    if as_json:
        print_json(rows)
        return
    columns = ("intent", "priority", "handler", "package", "actions")
    print_table(
        columns,
        [[*(row[column] for column in columns[:-1]), ", ".join(row["actions"])] for row in rows],
    )


def known_intents() -> list[dict[str, Any]]:
    """One object for each intent."""
    known = catalogue()
    return [
        {
            "intent": handler.intent,
            "priority": handler.priority,
            "handler": type(handler).__name__,
            "package": known.package(INTENTS, handler.intent),
            "actions": sorted(handler.emits),
        }
        for handler in known.intents.handlers
    ]
