"""Which handler takes a message, and the rules of routing that hold for every handler."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import replace
from typing import Final

from streamapp.intents.availability_inquiry import AvailabilityInquiryHandler
from streamapp.intents.base import Decision, IntentHandler, Thresholds
from streamapp.intents.complaint import ComplaintHandler
from streamapp.intents.general_inquiry import GeneralInquiryHandler
from streamapp.intents.order_request import OrderRequestHandler
from streamapp.intents.pricing_inquiry import PricingInquiryHandler
from streamapp.intents.schedule_call import ScheduleCallHandler
from streamapp.intents.unknown import UnknownHandler
from streamapp.saga.model import Message
from streamapp.values import value

REVIEW: Final = "flag_for_review"  # appended to every plan made in doubt


class RegistrationError(Exception):
    """A handler that cannot be registered; the message says why."""


class UndeclaredAction(Exception):
    """A handler emitted an action that its ``emits`` does not name."""


@value
class Routed:
    """A message's handler and what it decided, after the rules of routing.

    ``handler`` is the intent that the handler stands for. ``suggested`` names those actions of
    the plan that only the AI asked for, ``unknown_suggestions`` counts those that do not exist.
    ``decision.why`` begins with how the handler was found.
    """

    handler: str
    decision: Decision
    suggested: tuple[str, ...] = ()
    unknown_suggestions: int = 0


class Registry:
    """The handlers, in the order in which they are asked.

    ``fallback`` takes what nobody else accepts, and every message below the minimum confidence.
    """

    def __init__(self, fallback: IntentHandler, handlers: Iterable[IntentHandler] = ()) -> None:
        self._fallback = fallback
        self._handlers: list[IntentHandler] = []
        for handler in (*handlers, fallback):
            self.register(handler)

    def register(self, handler: IntentHandler) -> None:
        """Add a handler. Raises ``RegistrationError`` for one that is malformed or whose intent
        is taken."""
        name = type(handler).__name__
        for attribute in ("intent", "priority", "emits"):
            if not hasattr(handler, attribute):
                raise RegistrationError(f"{name} does not define {attribute!r}")
        intent, emits = handler.intent, handler.emits
        if not isinstance(intent, str) or not intent or intent != intent.strip():
            raise RegistrationError(f"{name}.intent must be a name, not {intent!r}")
        if not isinstance(handler.priority, int) or isinstance(handler.priority, bool):
            raise RegistrationError(f"{name}.priority must be an int, not {handler.priority!r}")
        if not isinstance(emits, frozenset) or not all(
            isinstance(action, str) and action for action in emits
        ):
            raise RegistrationError(f"{name}.emits must be a frozenset of action names")
        for other in self._handlers:
            if other.intent == intent:
                raise RegistrationError(
                    f"{name} cannot handle {intent}: {type(other).__name__} does already"
                )
        self._handlers.append(handler)
        self._handlers.sort(key=lambda each: -each.priority)  # stable: then by registration

    @property
    def handlers(self) -> tuple[IntentHandler, ...]:
        """In the order in which they are asked."""
        return tuple(self._handlers)

    @property
    def intents(self) -> frozenset[str]:
        """The known intents; for metrics every other one is ``other``."""
        return frozenset(handler.intent for handler in self._handlers)

    def all_emitted(self) -> frozenset[str]:
        """Every action that routing can put into a plan without a suggestion of the AI."""
        return frozenset({REVIEW}).union(*(handler.emits for handler in self._handlers))

    def route(
        self,
        message: Message,
        thresholds: Thresholds,
        *,
        suggested: Sequence[str] = (),
        known_actions: Container[str] = frozenset(),
    ) -> Routed:
        """Find the handler and apply the rules of routing to its decision.

        ``suggested`` are the AI's suggestions, empty where the setting does not allow them;
        those in ``known_actions`` are appended. Raises ``UndeclaredAction``, and whatever the
        handler raises.
        """
        handler, found = self._find(message, thresholds)
        decision = handler.decide(message, thresholds)
        actions = dict.fromkeys(decision.actions)  # an ordered set: the first place is kept
        if not handler.emits.issuperset(actions):
            undeclared = ", ".join(sorted(set(actions) - handler.emits))
            raise UndeclaredAction(
                f"{type(handler).__name__} emitted {undeclared}, which its emits does not name"
            )
        why = [found, *decision.why]
        escalate = decision.escalate
        if message.confidence < thresholds.high:
            escalate = True
            actions[REVIEW] = None
            why.append(
                f"confidence {message.confidence:g} below {thresholds.high:g}: escalated, {REVIEW}"
            )
        appended: list[str] = []
        unknown = 0
        for name in suggested:
            if name not in known_actions:
                unknown += 1
            elif name not in actions:
                actions[name] = None
                appended.append(name)
                why.append(f"suggested by the AI: {name}")
        return Routed(
            handler=handler.intent,
            decision=replace(decision, actions=tuple(actions), escalate=escalate, why=tuple(why)),
            suggested=tuple(appended),
            unknown_suggestions=unknown,
        )

    def _find(self, message: Message, thresholds: Thresholds) -> tuple[IntentHandler, str]:
        fallback = self._fallback
        if message.confidence < thresholds.minimum:
            return fallback, (
                f"confidence {message.confidence:g} below the minimum {thresholds.minimum:g}: "
                f"{fallback.intent}"
            )
        for handler in self._handlers:
            if handler.accepts(message, thresholds):
                return handler, f"{handler.intent} (priority {handler.priority}) accepts it"
        return fallback, f"no handler accepts it: {fallback.intent}"


def default_registry() -> Registry:
    """A new registry of the handlers that come with the package."""
    return Registry(
        UnknownHandler(),
        (
            OrderRequestHandler(),
            ComplaintHandler(),
            PricingInquiryHandler(),
            AvailabilityInquiryHandler(),
            ScheduleCallHandler(),
            GeneralInquiryHandler(),
        ),
    )
