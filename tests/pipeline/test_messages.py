"""Decoding records: what a valid one says, bare and in its envelope."""

from __future__ import annotations

import json
from typing import Any

import pytest

from streamapp.pipeline.messages import AIError
from tests.pipeline.records import envelope, read, read_result, result, without


def test_a_full_result() -> None:
    message = read_result(result())
    assert (message.processing_id, message.lead_id) == ("p-1", "lead-1")
    assert (message.business_id, message.tenant_id) == ("business-1", "tenant-1")
    assert (message.intent, message.confidence) == ("ORDER_REQUEST", 0.93)
    assert message.entities == {"product": "Widget X", "quantity": 100}
    assert message.suggested_actions == ("notify_sales",)
    assert message.suggested_response == "Gladly!"
    assert message.text == "100 of Widget X, please"
    assert message.processing_time_ms == 120.0
    assert (message.source, message.reply_to) == ("webchat", "491700000000")
    assert message.ignored_suggestions == 0


def test_the_saga_gets_the_tenant_that_was_found() -> None:
    message = read_result(result(tenant_id=None)).message("found")
    assert message.processing_id == "p-1"
    assert message.lead_id == "lead-1"
    assert message.business_id == "business-1"
    assert message.tenant_id == "found"
    assert message.intent == "ORDER_REQUEST"
    assert message.confidence == 0.93
    assert message.entities == {"product": "Widget X", "quantity": 100}
    assert message.text == "100 of Widget X, please"
    assert message.source == "webchat"
    assert message.reply_to == "491700000000"


def test_the_least_that_is_a_result() -> None:
    message = read_result({"processing_id": "p", "lead_id": "lead-1", "business_id": "b"})
    assert message.tenant_id is None
    assert (message.intent, message.confidence) == ("UNKNOWN", 0.0)
    assert (message.entities, message.text) == ({}, "")
    assert message.suggested_actions == ()
    assert message.ignored_suggestions == 0
    assert message.suggested_response is None
    assert message.processing_time_ms is None
    assert (message.source, message.reply_to) == ("whatsapp", None)


@pytest.mark.parametrize(
    "name",
    [
        "tenant_id",
        "intent",
        "entities",
        "suggested_actions",
        "suggested_response",
        "original_message",
        "processing_time_ms",
        "source",
        "reply_to",
    ],
)
def test_null_is_missing(name: str) -> None:
    assert read(result(**{name: None})) == read(without(name))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"intent": "  COMPLAINT\n", "confidence": 1}, ("COMPLAINT", 1.0)),
        ({"intent": "complaint", "confidence": 0}, ("complaint", 0.0)),
        ({"intent": None, "confidence": 0.9}, ("UNKNOWN", 0.9)),
        ({"intent": "  ", "confidence": 0.9}, ("UNKNOWN", 0.9)),
        ({"intent": "COMPLAINT", "confidence": None}, ("COMPLAINT", 0.0)),
        ({"intent": "COMPLAINT"}, ("COMPLAINT", 0.0)),
        ({}, ("UNKNOWN", 0.0)),
    ],
)
def test_intent_and_confidence(given: Any, expected: tuple[str, float]) -> None:
    message = read_result(result(intent=given))
    assert (message.intent, message.confidence) == expected
    assert isinstance(message.confidence, float)


@pytest.mark.parametrize(
    ("given", "names", "ignored"),
    [
        (["a", "b", "a"], ("a", "b", "a"), 0),
        (["a", 1, None, ["b"], "c"], ("a", "c"), 3),
        ([], (), 0),
        ("notify_sales", (), 1),
        ("", (), 1),
        ({"a": 1}, (), 1),
        ({}, (), 1),
        (False, (), 1),
        (0, (), 1),
    ],
)
def test_suggested_actions(given: Any, names: tuple[str, ...], ignored: int) -> None:
    message = read_result(result(suggested_actions=given))
    assert (message.suggested_actions, message.ignored_suggestions) == (names, ignored)


@pytest.mark.parametrize("wrong", [1, True, [], {}, ["x"]])
def test_what_is_not_needed_is_ignored_when_wrong(wrong: Any) -> None:
    message = read_result(result(suggested_response=wrong, source=wrong, reply_to=wrong))
    assert message.suggested_response is None
    assert message.source == "whatsapp"
    assert message.reply_to is None


@pytest.mark.parametrize("wrong", ["120", True, False, [], {}, -1, -0.5])
def test_a_wrong_processing_time_is_ignored(wrong: Any) -> None:
    assert read_result(result(processing_time_ms=wrong)).processing_time_ms is None


def test_a_processing_time_beyond_all_numbers_is_ignored() -> None:
    value = json.dumps(result(processing_time_ms=0)).replace('_ms": 0', '_ms": 1e999').encode()
    assert read_result(value).processing_time_ms is None


def test_unknown_fields_change_nothing() -> None:
    assert read(result(colour="green", trace={"a": [1]})) == read(result())


def test_an_envelope_says_the_same_as_its_payload() -> None:
    wrapped = envelope(result(), event_id="e-1", timestamp="2024-01-01T00:00:00Z")
    assert read(wrapped) == read(result())


def test_an_envelopes_own_fields_are_not_the_payloads() -> None:
    wrapped = envelope(result(), processing_id="another", lead_id="another", event_id=7)
    assert read(wrapped) == read(result())


@pytest.mark.parametrize(
    "extra",
    [
        {"payload": {"some": "thing"}},
        {"payload": "text"},
        {"payload": {"some": "thing"}, "event_type": None},
        {"event_type": None},
        {"event_type": "ai.process.result"},
        {"event_id": "e-1", "timestamp": 5},
    ],
)
def test_a_bare_result_may_have_an_envelopes_field(extra: dict[str, Any]) -> None:
    assert read(result(**extra)) == read(result())


def test_a_bare_error() -> None:
    message = read({"event_type": "ai.error", "lead_id": "lead-1", "error_type": "timeout"})
    assert isinstance(message, AIError)
    assert message.error_type == "timeout"


def test_a_full_error() -> None:
    body = {
        "lead_id": "lead-1",
        "business_id": "business-1",
        "tenant_id": "tenant-1",
        "error_type": "timeout",
        "error_message": "the model did not answer",
    }
    assert read(envelope(body, "ai.error", event_id="e-9")) == AIError(
        processing_id="ai.error:e-9",
        lead_id="lead-1",
        business_id="business-1",
        tenant_id="tenant-1",
        error_type="timeout",
        error_message="the model did not answer",
    )


def test_the_least_that_is_an_error() -> None:
    assert read(envelope({"lead_id": "lead-1"}, "ai.error", event_id=None)) == AIError(
        processing_id="ai.error:ai-results:3:17",
        lead_id="lead-1",
        business_id=None,
        tenant_id=None,
        error_type="unknown",
        error_message="",
    )
