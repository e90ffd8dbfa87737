"""What an intent handler is: a pure function from a message to the actions it wants."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import field
from typing import Any, ClassVar

from streamapp.saga.model import Message
from streamapp.values import value


@value
class Thresholds:
    """Confidence limits of routing (settings)."""

    minimum: float = 0.5
    high: float = 0.8


@value
class Decision:
    """What a handler wants done: actions in its own order, and what to tell the customer.

    ``reply`` holds whatever becomes of the actions. ``promise`` is said as well where a content
    that the plan sends (``send_...``) is not at hand, so that somebody has to send it later.
    """

    actions: tuple[str, ...]
    escalate: bool
    metadata: dict[str, Any] = field(default_factory=dict)
    reply: str | None = None
    why: tuple[str, ...] = ()  # for people: what led to the actions beyond the fixed ones
    promise: str | None = None
    generic: bool = False  # the reply says nothing of what was asked: another may fit better


class IntentHandler(ABC):
    """Base of the handlers: one intent, one file. Handlers are pure and synchronous."""

    intent: ClassVar[str]
    priority: ClassVar[int]
    emits: ClassVar[frozenset[str]]  # every action it may emit; checked at start-up

    def accepts(self, message: Message, thresholds: Thresholds) -> bool:
        """Whether this handler takes the message."""
        return message.intent == self.intent and message.confidence >= thresholds.minimum

    @abstractmethod
    def decide(self, message: Message, thresholds: Thresholds) -> Decision:
        """The actions for a message it accepts. Same message, same decision."""
