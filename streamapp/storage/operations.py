"""What people ask for: how it is refused, and where it is written down."""

from __future__ import annotations

from typing import Any

from streamapp.storage.batch import to_json
from streamapp.storage.connection import Session


class Refused(Exception):
    """What was asked for is not possible; the message is a sentence for the person."""


class Unknown(Refused):
    """There is nothing of that name."""


async def audit(
    connection: Session, actor: str, action: str, target: str, details: dict[str, Any]
) -> None:
    """Write down who did what, in the transaction that does it."""
    await connection.execute(
        "INSERT INTO audit_log (actor, action, target, details) VALUES ($1, $2, $3, $4::jsonb)",
        actor,
        action,
        target,
        to_json(details),
    )
