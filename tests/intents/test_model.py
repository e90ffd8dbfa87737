"""Every handler decides as the tables say, shown against a model that was written from them."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamapp.intents.registry import default_registry
from tests.intents.model import GENERAL, GENERAL_URGENCY, HANDLERS, Given, expected
from tests.intents.samples import sample
from tests.intents.support import THRESHOLDS, message

REGISTRY = default_registry()
RANDOMS = st.randoms(use_true_random=False)


def check(about: Given) -> None:
    routed = REGISTRY.route(
        message(about.intent, about.confidence, about.entities, about.text), THRESHOLDS
    )
    wanted = expected(about)
    assert routed.handler == wanted.handler, about
    assert list(routed.decision.actions) == wanted.actions, about
    assert routed.decision.escalate == wanted.escalate, about
    metadata = routed.decision.metadata
    assert {name: metadata[name] for name in wanted.metadata} == wanted.metadata, about


@settings(max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(RANDOMS)
def test_any_message(random: Random) -> None:
    check(sample(random))


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(sorted(HANDLERS)), st.floats(0, 1), st.text(), RANDOMS)
def test_any_confidence_and_any_text(
    intent: str, confidence: float, text: str, random: Random
) -> None:
    check(Given(intent, confidence, sample(random).entities, text))


KEYWORDS = [(name, word) for name, row in GENERAL.items() for word in row[0]]


@pytest.mark.parametrize(("name", "word"), KEYWORDS)
@pytest.mark.parametrize("text", ["{}", "Hm, {}?", "{}s", "x{}", "{}_", "un{}ed", "{} twice {}"])
def test_every_keyword(name: str, word: str, text: str) -> None:
    for confidence in (0.8, 0.81):
        about = Given("GENERAL_INQUIRY", confidence, {}, text.replace("{}", word))
        check(about)
        if text == "{}":
            assert expected(about).metadata["inquiry_category"] == name


@pytest.mark.parametrize("word", [*GENERAL_URGENCY, "urgently"])
@pytest.mark.parametrize("intent", ["GENERAL_INQUIRY", "COMPLAINT", "UNKNOWN", "ORDER_REQUEST"])
@pytest.mark.parametrize(
    "text",
    ["{}", "Come {}!", "not {}", "Non-{}", "isn\u2019t an {}", "nothing {}, {}", "knot {}", "{}x"],
)
def test_every_urgency_word(word: str, intent: str, text: str) -> None:
    about = Given(intent, 0.9, {}, text.replace("{}", word))
    check(about)
    if intent == "GENERAL_INQUIRY":
        urgent = text in ("{}", "Come {}!", "nothing {}, {}", "knot {}")
        assert ("priority_high" in expected(about).actions) == urgent


@pytest.mark.parametrize("name", sorted(GENERAL))
def test_every_category_by_name(name: str) -> None:
    for written in (name, name.upper().replace("_", "  -"), f" {name.replace('_', ' ')}\n"):
        about = Given("GENERAL_INQUIRY", 0.9, {"category": written}, "catalog")
        check(about)
        assert expected(about).metadata["inquiry_category"] == name


def test_the_samples_reach_every_action() -> None:
    """Or the comparison would say less than it seems to."""
    random, seen = Random(1), set()
    for _ in range(3000):
        seen |= set(expected(sample(random)).actions)
    assert seen == REGISTRY.all_emitted()
