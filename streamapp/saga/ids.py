"""Deterministic ids: a step of a run has the same ids in every attempt, on every worker."""

from __future__ import annotations

from hashlib import sha1
from typing import Literal
from uuid import UUID

_NAMESPACE = UUID("6f0c9a52-3f0e-5c7b-9f55-0d9a4c1f7e21").bytes

Direction = Literal["forward", "compensate"]


def _stable(*parts: object) -> str:
    # Lengths keep ("a", "bc") and ("ab", "c") apart: ids come from outside and may hold anything.
    name = "".join([f"{len(text)}:{text}" for text in map(str, parts)])
    # As ``uuid.uuid5`` does (RFC 9562, 5.5), without the objects that it makes on the way.
    digest = bytearray(sha1(_NAMESPACE + name.encode(), usedforsecurity=False).digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x50
    digest[8] = digest[8] & 0x3F | 0x80
    text = digest.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


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
