"""What a saga tells about itself while it runs: metrics and logs listen here."""

from __future__ import annotations

from typing import Protocol

from streamapp.saga.model import Message


class SagaObserver(Protocol):
    """Called in the event loop, so implementations return at once and never raise."""

    def step_finished(self, action: str, status: str, seconds: float | None) -> None:
        """A step ended: ``done`` or ``failed``; seconds since its first attempt, None for one that
        is part of a commit and has no time of its own."""

    def attempt_failed(self, action: str, error: str) -> None:
        """An attempt failed and another one follows."""

    def compensation_finished(self, action: str, status: str) -> None:
        """The compensation of a step ended: ``done`` or ``failed``."""

    def lead_changed(self, from_state: str, to_state: str) -> None:
        """A lead's status was changed, and the change is durable."""

    def saga_finished(self, message: Message, status: str, reason: str | None) -> None:
        """A run ended, durably: COMPLETED, COMPENSATED, STUCK or RESOLVED."""

    def dead_lettered(self, reason: str) -> None:
        """A dead letter is durable (as an outbox row of the saga)."""

    def text_failed(self, topic: str) -> None:
        """A template of a business failed, and the plain text was used."""

    def responded(self) -> None:
        """A reply to the customer is durable."""
