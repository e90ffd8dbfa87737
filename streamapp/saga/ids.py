"""Deterministic ids: a step of a run has the same ids in every attempt, on every worker."""

from __future__ import annotations

from typing import Literal
from uuid import UUID, uuid5

_NAMESPACE = UUID("6f0c9a52-3f0e-5c7b-9f55-0d9a4c1f7e21")

Direction = Literal["forward", "compensate"]


def _stable(*parts: object) -> str:
    # Lengths keep ("a", "bc") and ("ab", "c") apart: ids come from outside and may hold anything.
    return str(uuid5(_NAMESPACE, "".join(f"{len(str(part))}:{part}" for part in parts)))


def idempotency_key(
    processing_id: str, run: int, action: str, sub_step: str, direction: Direction
) -> str:
    """The key that every attempt of one external effect carries (protocol, 3)."""
    return _stable("key", processing_id, run, action, sub_step, direction)


def row_id(kind: str, processing_id: str, run: int, action: str, sub_step: str = "") -> str:
    """Id of a row that a step creates: ``kind`` is task, activity or message."""
    return _stable(kind, processing_id, run, action, sub_step)


def dead_letter_id(
    position: str, timestamp_ms: int, action: str, run: int, redrive: str = ""
) -> str:
    """Id of a dead letter: first source, action, run and the redrive that failed (protocol, 5)."""
    parts = (position, timestamp_ms, action, run, *([redrive] if redrive else []))
    return _stable("dead-letter", *parts)
