"""Metrics: the names of the contract, and labels from closed sets only."""

from __future__ import annotations

import asyncio

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from streamapp.observability.metrics import Metrics, known, new_registry
from streamapp.pipeline.outcomes import Outcome, Reason
from streamapp.saga.model import Message

NAMES = {
    "messages_received_total": {"source", "business"},
    "messages_processed_total": {"outcome"},
    "messages_duplicate_total": {"source"},
    "message_duration_seconds": set(),
    "ai_processing_duration_seconds": {"intent"},
    "ai_intents_detected_total": {"intent"},
    "ai_intent_confidence_ratio": {"intent"},
    "actions_total": {"action", "status"},
    "action_duration_seconds": {"action"},
    "action_compensations_total": {"action", "status"},
    "dlq_messages_total": {"reason"},
    "dlq_unresolved": {"reason"},
    "dlq_oldest_unresolved_timestamp_seconds": set(),
    "circuit_breaker_state": {"circuit", "state"},
    "circuit_breaker_calls_total": {"circuit", "kind"},
    "lead_state_changes_total": {"from_state", "to_state"},
    "responses_total": {"channel", "status"},
    "in_flight_messages": set(),
    "lanes_active": set(),
    "consumer_lag": {"topic", "partition"},
    "dedup_lookups_total": {"tier", "result"},
}


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def metrics(registry: CollectorRegistry) -> Metrics:
    return Metrics(registry, actions=["create_order"], circuits=["order"], businesses=["b1"])


def message(intent: str = "COMPLAINT", confidence: float = 0.9) -> Message:
    return Message("m", "lead-secret", "b1", "t", intent, confidence, {}, "text")


def exercise(metrics: Metrics, text: str = "create_order") -> None:
    """Touch every metric once, with ``text`` wherever an open text may come."""
    metrics.received(text, text)
    for outcome in Outcome:
        metrics.delivered(outcome, text, 0.1)
    metrics.understood(message(text), 0.5)
    metrics.looked_up(text, text)
    metrics.defect(text, ValueError(text))
    metrics.lagging("ai-results", 0, 7)
    metrics.step_finished(text, text, 0.1)
    metrics.attempt_failed(text, text)
    metrics.compensation_finished(text, text)
    metrics.lead_changed(text, text)
    metrics.saga_finished(message(text), text, text)
    metrics.dead_lettered(text)
    metrics.responded(text, text)
    metrics.circuit_changed(text, text)
    metrics.circuit_called(text, text)
    metrics.dead_letters_open({text: 1}, 1.0)
    metrics.reachable("database", False)


def test_every_metric_of_the_contract_is_there(
    metrics: Metrics, registry: CollectorRegistry
) -> None:
    exercise(metrics)
    labels: dict[str, set[str]] = {}
    for family in registry.collect():
        for sample in family.samples:
            labels.setdefault(sample.name, set()).update(sample.labels)
            labels.setdefault(family.name, set()).update(set(sample.labels) - {"le"})
    for name, expected in NAMES.items():
        assert labels.get(f"streamapp_{name}") == expected, name


def test_everything_has_the_prefix(metrics: Metrics, registry: CollectorRegistry) -> None:
    exercise(metrics)
    assert all(family.name.startswith("streamapp_") for family in registry.collect())


def test_no_open_text_becomes_a_label(metrics: Metrics, registry: CollectorRegistry) -> None:
    exercise(metrics, "lead-4711 said 'hello'")
    assert b"4711" not in generate_latest(registry)


def test_ids_never_become_labels(metrics: Metrics, registry: CollectorRegistry) -> None:
    exercise(metrics)
    assert b"lead-secret" not in generate_latest(registry)


def test_known_values_keep_their_name() -> None:
    assert known("a", {"a"}) == "a"
    assert known("b", {"a"}) == "other"


def value(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(f"streamapp_{name}", labels)


def test_messages_are_counted_by_source_and_business(
    metrics: Metrics, registry: CollectorRegistry
) -> None:
    metrics.received("whatsapp", "b1")
    metrics.received("whatsapp", "b2")
    metrics.received("telegraph", "b1")
    name = "messages_received_total"
    assert value(registry, name, source="whatsapp", business="b1") == 1
    assert value(registry, name, source="whatsapp", business="other") == 1
    assert value(registry, name, source="other", business="b1") == 1


def test_each_delivery_has_one_outcome(metrics: Metrics, registry: CollectorRegistry) -> None:
    for outcome in Outcome:
        assert value(registry, "messages_processed_total", outcome=outcome.value) == 0
    metrics.delivered(Outcome.PROCESSED, "whatsapp", 0.2)
    metrics.delivered(Outcome.DUPLICATE, "whatsapp", 0.2)
    for outcome in Outcome:
        expected = 1 if outcome in (Outcome.PROCESSED, Outcome.DUPLICATE) else 0
        assert value(registry, "messages_processed_total", outcome=outcome.value) == expected
    assert value(registry, "messages_duplicate_total", source="whatsapp") == 1
    assert value(registry, "message_duration_seconds_count") == 2


def test_what_the_ai_said(metrics: Metrics, registry: CollectorRegistry) -> None:
    metrics.understood(message("COMPLAINT", 0.75), 1.5)
    metrics.understood(message("GOSSIP", 0.5), None)
    assert value(registry, "ai_intents_detected_total", intent="COMPLAINT") == 1
    assert value(registry, "ai_intents_detected_total", intent="other") == 1
    assert value(registry, "ai_intent_confidence_ratio_sum", intent="COMPLAINT") == 0.75
    assert value(registry, "ai_processing_duration_seconds_sum", intent="COMPLAINT") == 1.5
    assert value(registry, "ai_processing_duration_seconds_count", intent="other") is None


def test_steps_are_counted_by_action(metrics: Metrics, registry: CollectorRegistry) -> None:
    metrics.step_finished("create_order", "done", 0.5)
    metrics.step_finished("own_action", "failed", 0.5)
    metrics.step_finished("create_order", "done", None)
    metrics.attempt_failed("create_order", "no answer")
    metrics.compensation_finished("create_order", "failed")
    assert value(registry, "actions_total", action="create_order", status="done") == 2
    assert value(registry, "actions_total", action="create_order", status="failed") == 0
    assert value(registry, "actions_total", action="other", status="failed") == 1
    assert value(registry, "action_duration_seconds_sum", action="create_order") == 0.5
    assert value(registry, "action_duration_seconds_count", action="create_order") == 1
    assert value(registry, "action_retries_total", action="create_order") == 1
    assert (
        value(registry, "action_compensations_total", action="create_order", status="failed") == 1
    )


def test_a_circuit_is_in_one_state(metrics: Metrics, registry: CollectorRegistry) -> None:
    def states() -> dict[str, float | None]:
        return {
            state: value(registry, "circuit_breaker_state", circuit="order", state=state)
            for state in ("closed", "open", "half_open", "forced_open", "disabled")
        }

    assert states() == {"closed": 1, "open": 0, "half_open": 0, "forced_open": 0, "disabled": 0}
    metrics.circuit_changed("order", "half_open")
    assert states() == {"closed": 0, "open": 0, "half_open": 1, "forced_open": 0, "disabled": 0}
    metrics.circuit_called("order", "rejected")
    assert value(registry, "circuit_breaker_calls_total", circuit="order", kind="rejected") == 1


def test_dead_letters_by_reason(metrics: Metrics, registry: CollectorRegistry) -> None:
    for reason in Reason:
        assert value(registry, "dlq_messages_total", reason=reason.value) == 0
    metrics.dead_lettered("unknown_tenant")
    assert value(registry, "dlq_messages_total", reason="unknown_tenant") == 1
    metrics.dead_letters_open({"unknown_tenant": 3}, 1_700_000_000.0)
    metrics.dead_letters_open({"handler_error": 2}, None)
    assert value(registry, "dlq_unresolved", reason="unknown_tenant") == 0
    assert value(registry, "dlq_unresolved", reason="handler_error") == 2
    assert value(registry, "dlq_oldest_unresolved_timestamp_seconds") == 0


def test_a_partition_that_went_elsewhere_is_not_reported_any_more(
    metrics: Metrics, registry: CollectorRegistry
) -> None:
    metrics.lagging("ai-results", 3, 12)
    assert value(registry, "consumer_lag", topic="ai-results", partition="3") == 12
    metrics.partition_gone("ai-results", 3)
    metrics.partition_gone("ai-results", 3)
    assert value(registry, "consumer_lag", topic="ai-results", partition="3") is None


def test_lookups_replies_leads_and_outages(metrics: Metrics, registry: CollectorRegistry) -> None:
    metrics.looked_up("rocksdb", "hit")
    metrics.looked_up("postgresql", "miss")
    metrics.responded()
    metrics.lead_changed("new", "needs_review")
    metrics.reachable("broker", False)
    metrics.reachable("database", True)
    assert value(registry, "dedup_lookups_total", tier="rocksdb", result="hit") == 1
    assert value(registry, "dedup_lookups_total", tier="postgresql", result="miss") == 1
    assert value(registry, "responses_total", channel="whatsapp", status="queued") == 1
    name = "lead_state_changes_total"
    assert value(registry, name, from_state="new", to_state="needs_review") == 1
    assert value(registry, "outage", dependency="broker") == 1
    assert value(registry, "outage", dependency="database") == 0


async def test_a_registry_tells_of_its_process_too() -> None:
    text = await asyncio.to_thread(generate_latest, new_registry())
    assert b"process_resident_memory_bytes" in text
