"""Registration and the rules of routing."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamapp.intents.base import Decision, IntentHandler, Thresholds
from streamapp.intents.complaint import ComplaintHandler
from streamapp.intents.registry import (
    RegistrationError,
    Registry,
    UndeclaredAction,
    default_registry,
)
from streamapp.intents.unknown import UnknownHandler
from streamapp.saga.model import Message
from tests.intents.support import THRESHOLDS, message

ACTIONS = ("a", "b", "c", "flag_for_review")


class Fixed(IntentHandler):
    """Accepts what it is told to accept and decides what it is told to decide."""

    def __init__(
        self,
        intent: str,
        actions: tuple[str, ...] = ("a",),
        *,
        priority: int = 5,
        accepts_all: bool = False,
        escalate: bool = False,
        emits: Any = frozenset(ACTIONS),
    ) -> None:
        # Class variables of the base, set on the instance: each test has its own handlers.
        vars(self).update(intent=intent, priority=priority, emits=emits)
        self._accepts_all = accepts_all
        self._decision = Decision(actions, escalate, {"by": intent}, "reply", ("own reason",))

    def accepts(self, message: Message, thresholds: Thresholds) -> bool:
        return self._accepts_all or super().accepts(message, thresholds)

    def decide(self, message: Message, thresholds: Thresholds) -> Decision:
        return self._decision


def registry(*handlers: IntentHandler) -> Registry:
    return Registry(UnknownHandler(), handlers)


# --- Who is asked


@pytest.mark.parametrize(
    ("intent", "confidence", "handler"),
    [
        ("ORDER_REQUEST", 0.5, "ORDER_REQUEST"),
        ("COMPLAINT", 0.9, "COMPLAINT"),
        ("PRICING_INQUIRY", 0.9, "PRICING_INQUIRY"),
        ("UNKNOWN", 1.0, "UNKNOWN"),
        ("order_request", 0.9, "UNKNOWN"),
        ("ORDER_REQUEST", 0.4999999, "UNKNOWN"),
        ("ORDER_REQUEST", 0.0, "UNKNOWN"),
    ],
)
def test_the_handler_of_the_intent_takes_it(intent: str, confidence: float, handler: str) -> None:
    assert default_registry().route(message(intent, confidence), THRESHOLDS).handler == handler


def test_thresholds_are_the_callers() -> None:
    given = message("ORDER_REQUEST", 0.4)
    assert default_registry().route(given, Thresholds(0.4, 0.4)).handler == "ORDER_REQUEST"
    assert default_registry().route(given, Thresholds(0.41, 0.8)).handler == "UNKNOWN"


def test_the_highest_priority_is_asked_first() -> None:
    low = Fixed("LOW", priority=4, accepts_all=True)
    high = Fixed("HIGH", priority=6, accepts_all=True)
    for handlers in ((low, high), (high, low)):
        assert registry(*handlers).route(message("X"), THRESHOLDS).handler == "HIGH"


def test_at_the_same_priority_the_first_registered_is_asked_first() -> None:
    one, two = Fixed("ONE", accepts_all=True), Fixed("TWO", accepts_all=True)
    assert registry(one, two).route(message("X"), THRESHOLDS).handler == "ONE"
    assert registry(two, one).route(message("X"), THRESHOLDS).handler == "TWO"


def test_below_the_minimum_nobody_is_asked() -> None:
    greedy = Fixed("GREEDY", accepts_all=True)
    assert registry(greedy).route(message("GREEDY", 0.49), THRESHOLDS).handler == "UNKNOWN"


def test_a_handler_registered_later_is_asked_in_its_place() -> None:
    late = registry(Fixed("ONE", priority=4, accepts_all=True))
    late.register(Fixed("TWO", priority=5, accepts_all=True))
    assert late.route(message("X"), THRESHOLDS).handler == "TWO"
    assert [handler.intent for handler in late.handlers] == ["TWO", "ONE", "UNKNOWN"]


def test_default_handlers_by_priority() -> None:
    asked = [(handler.intent, handler.priority) for handler in default_registry().handlers]
    assert [priority for _, priority in asked] == sorted((p for _, p in asked), reverse=True)
    assert {("ORDER_REQUEST", 10), ("COMPLAINT", 10), ("PRICING_INQUIRY", 8)}.issubset(asked)
    assert asked[-1] == ("UNKNOWN", 1)


# --- What becomes of the decision


def test_the_decision_is_passed_on() -> None:
    routed = registry(Fixed("X", ("b", "a"))).route(message("X"), THRESHOLDS)
    assert routed.decision.actions == ("b", "a")
    assert not routed.decision.escalate
    assert routed.decision.metadata == {"by": "X"}
    assert routed.decision.reply == "reply"
    assert (routed.suggested, routed.unknown_suggestions) == ((), 0)


def test_duplicates_keep_their_first_place() -> None:
    routed = registry(Fixed("X", ("b", "a", "b", "c", "a"))).route(message("X"), THRESHOLDS)
    assert routed.decision.actions == ("b", "a", "c")


@pytest.mark.parametrize(
    ("confidence", "flagged"), [(0.5, True), (0.7999, True), (0.8, False), (0.9, False)]
)
def test_below_high_it_is_escalated_and_flagged_last(confidence: float, flagged: bool) -> None:
    routed = registry(Fixed("X", ("b", "a"))).route(message("X", confidence), THRESHOLDS)
    assert routed.decision.actions == (("b", "a", "flag_for_review") if flagged else ("b", "a"))
    assert routed.decision.escalate == flagged


@pytest.mark.parametrize("confidence", [0.5, 0.9])
def test_an_own_flag_keeps_its_place(confidence: float) -> None:
    handler = Fixed("X", ("flag_for_review", "a"))
    routed = registry(handler).route(message("X", confidence), THRESHOLDS)
    assert routed.decision.actions == ("flag_for_review", "a")


def test_a_handlers_own_escalation_stays() -> None:
    routed = registry(Fixed("X", escalate=True)).route(message("X", 0.9), THRESHOLDS)
    assert routed.decision.escalate


def test_suggestions_are_appended_last_and_marked() -> None:
    routed = registry(Fixed("X", ("b",))).route(
        message("X", 0.6),
        THRESHOLDS,
        suggested=("c", "nonsense", "b", "a", "c", "other", "flag_for_review"),
        known_actions={"a", "b", "c", "flag_for_review"},
    )
    assert routed.decision.actions == ("b", "flag_for_review", "c", "a")
    assert routed.suggested == ("c", "a")
    assert routed.unknown_suggestions == 2


def test_without_suggestions_known_actions_change_nothing() -> None:
    routed = registry(Fixed("X")).route(message("X"), THRESHOLDS, known_actions={"c"})
    assert routed.decision.actions == ("a",)


@given(
    st.lists(st.sampled_from(ACTIONS), max_size=8),
    st.lists(st.sampled_from([*ACTIONS, "d", "nonsense"]), max_size=8),
    st.floats(0.5, 1.0),
    st.booleans(),
)
def test_the_rules_hold_together(
    emitted: list[str], suggested: list[str], confidence: float, escalate: bool
) -> None:
    known = {*ACTIONS, "d"}
    routed = registry(Fixed("X", tuple(emitted), escalate=escalate)).route(
        message("X", confidence), THRESHOLDS, suggested=suggested, known_actions=known
    )
    actions = routed.decision.actions
    own = [name for place, name in enumerate(emitted) if name not in emitted[:place]]
    if confidence < 0.8 and "flag_for_review" not in own:
        own.append("flag_for_review")
    assert len(set(actions)) == len(actions)
    assert list(actions[: len(own)]) == own
    assert actions[len(own) :] == routed.suggested
    assert set(routed.suggested) == (set(suggested) & known) - set(own)
    assert routed.unknown_suggestions == suggested.count("nonsense")
    assert routed.decision.escalate == (escalate or confidence < 0.8)


def test_routing_leaves_the_handlers_own_decision_alone() -> None:
    handler = Fixed("X", ("a",))
    registry(handler).route(message("X", 0.6), THRESHOLDS)
    assert handler.decide(message("X"), THRESHOLDS).actions == ("a",)


# --- Why


def test_why_tells_who_and_what_the_rules_added() -> None:
    why = registry(Fixed("X")).route(message("X"), THRESHOLDS).decision.why
    assert why == ("X (priority 5) accepts it", "own reason")
    flagged = registry(Fixed("X")).route(
        message("X", 0.6), THRESHOLDS, suggested=("c",), known_actions={"c"}
    )
    assert flagged.decision.why[2:] == (
        "confidence 0.6 below 0.8: escalated, flag_for_review",
        "suggested by the AI: c",
    )
    low = registry(Fixed("X")).route(message("X", 0.2), THRESHOLDS).decision.why
    assert low[0] == "confidence 0.2 below the minimum 0.5: UNKNOWN"
    nobody = registry(Fixed("X")).route(message("Y"), THRESHOLDS).decision.why
    assert nobody[0] == "no handler accepts it: UNKNOWN"


# --- Misuse


def test_an_intent_is_registered_once() -> None:
    with pytest.raises(RegistrationError, match="Fixed cannot handle X: Fixed does already"):
        registry(Fixed("X"), Fixed("X"))
    with pytest.raises(RegistrationError, match="UNKNOWN"):
        registry(Fixed("UNKNOWN"))
    with pytest.raises(RegistrationError, match="COMPLAINT"):
        default_registry().register(ComplaintHandler())


@pytest.mark.parametrize("intent", ["", " X", None, 5])
def test_an_intent_is_a_name(intent: Any) -> None:
    with pytest.raises(RegistrationError, match=r"Fixed\.intent"):
        registry(Fixed(intent))


@pytest.mark.parametrize("priority", ["10", None, True, 1.5])
def test_a_priority_is_an_int(priority: Any) -> None:
    with pytest.raises(RegistrationError, match=r"Fixed\.priority"):
        registry(Fixed("X", priority=priority))


@pytest.mark.parametrize("emits", ["create_order", {"a"}, ("a",), frozenset({""}), frozenset({1})])
def test_emits_is_a_frozenset_of_names(emits: Any) -> None:
    with pytest.raises(RegistrationError, match=r"Fixed\.emits"):
        registry(Fixed("X", emits=emits))


@pytest.mark.parametrize("missing", ["intent", "priority", "emits"])
def test_a_handler_defines_all_of_itself(missing: str) -> None:
    handler = Fixed("X")
    del vars(handler)[missing]
    with pytest.raises(RegistrationError, match=f"Fixed does not define '{missing}'"):
        registry(handler)


def test_a_refused_handler_is_not_registered() -> None:
    kept = registry()
    with pytest.raises(RegistrationError):
        kept.register(Fixed("X", emits="wrong"))
    assert kept.intents == {"UNKNOWN"}


def test_an_action_that_is_not_declared_is_refused() -> None:
    handler = Fixed("X", ("c", "a", "b"), emits=frozenset({"a"}))
    with pytest.raises(UndeclaredAction, match="Fixed emitted b, c,"):
        registry(handler).route(message("X"), THRESHOLDS)


def test_all_emitted_covers_routing_and_every_handler() -> None:
    assert registry(Fixed("X", emits=frozenset({"a"}))).all_emitted() == {
        "a",
        *UnknownHandler.emits,
    }
    bare = Registry(Fixed("UNKNOWN", emits=frozenset({"a"})))
    assert bare.all_emitted() == {"a", "flag_for_review"}


def test_intents() -> None:
    assert registry(Fixed("X")).intents == {"X", "UNKNOWN"}
