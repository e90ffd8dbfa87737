"""What a delivery of a record ends in, and the closed set of reasons for a dead letter."""

from __future__ import annotations

from dataclasses import field
from enum import StrEnum

from streamapp.values import value


class Outcome(StrEnum):
    """The one end of a delivery.

    Per process, ``received = processed + duplicate + dead_lettered + released + in flight``.
    """

    PROCESSED = "processed"
    DUPLICATE = "duplicate"
    DEAD_LETTERED = "dead_lettered"
    RELEASED = "released"  # given up on revocation or fencing: its next owner takes it up


class Reason(StrEnum):
    """Why a record, or one of its actions, was dead-lettered."""

    INVALID_PAYLOAD = "invalid_payload"
    UNKNOWN_TENANT = "unknown_tenant"
    HANDLER_ERROR = "handler_error"
    STEP_REJECTED = "step_rejected"
    RETRIES_EXHAUSTED = "retries_exhausted"
    CIRCUIT_OPEN = "circuit_open"
    ACTION_FAILED = "action_failed"
    PAYLOAD_MISMATCH = "payload_mismatch"
    COMPENSATION_STUCK = "compensation_stuck"
    PLAN_CHANGED = "plan_changed"


Headers = tuple[tuple[str, bytes], ...]


@value
class Record:
    """A record as it lies in the input topic: bytes, untouched."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers = field(default=())

    @property
    def position(self) -> str:
        """``topic:partition:offset``, unique within a cluster."""
        return f"{self.topic}:{self.partition}:{self.offset}"

    @property
    def size(self) -> int:
        """Bytes of key and value, for bounds on what is held in memory."""
        return len(self.key or b"") + len(self.value or b"")
