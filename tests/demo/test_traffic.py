"""Sample traffic: deterministic, complete, and each record what its kind says."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamapp.demo.services import DISCONTINUED
from streamapp.demo.traffic import DEAD_LETTERS, DUPLICATES, MINIMUM, Kind, Sample, leads, sample
from streamapp.intents.base import Thresholds
from streamapp.intents.registry import default_registry
from streamapp.pipeline.messages import AIResult, InvalidPayload, decode
from streamapp.pipeline.outcomes import Record
from streamapp.storage.tenants import tenant_of

LARGE = 2000
HANDLERS = {
    Kind.ORDER_REQUEST: "ORDER_REQUEST",
    Kind.REJECTED_ORDER: "ORDER_REQUEST",
    Kind.UNKNOWN_TENANT: "ORDER_REQUEST",
    Kind.COMPLAINT: "COMPLAINT",
    Kind.PRICING_INQUIRY: "PRICING_INQUIRY",
    Kind.SCHEDULE_CALL: "SCHEDULE_CALL",
    Kind.AVAILABILITY_INQUIRY: "AVAILABILITY_INQUIRY",
    Kind.GENERAL_INQUIRY: "GENERAL_INQUIRY",
    Kind.UNKNOWN: "UNKNOWN",
}


def result_of(record: Sample) -> AIResult:
    decoded = decode(
        Record("t", 0, 0, 0, record.key, record.value, record.headers), max_payload_bytes=262_144
    )
    assert isinstance(decoded, AIResult)
    return decoded


def tenant(result: AIResult) -> str | None:
    owners = [
        (lead.business_id, lead.tenant_id) for lead in leads() if lead.lead_id == result.lead_id
    ]
    return tenant_of(owners, result.business_id, result.tenant_id)


@given(st.integers(MINIMUM, 300), st.integers(0, 1000))
@settings(max_examples=60)
def test_it_has_all_kinds_is_as_long_as_asked_and_repeatable(n: int, seed: int) -> None:
    records = sample(n, seed)
    assert len(records) == n
    assert {record.kind for record in records} == set(Kind)
    assert records == sample(n, seed)


@pytest.mark.parametrize("n", [0, 1, 2, 5, 19])
def test_small_ones_are_as_long_as_asked(n: int) -> None:
    for seed in range(50):
        assert len(sample(n, seed)) == n


@given(st.integers(MINIMUM, 200), st.integers(0, 1000))
@settings(max_examples=60)
def test_repetitions_are_of_processed_records(n: int, seed: int) -> None:
    seen: dict[bytes, int] = {}
    for position, record in enumerate(sample(n, seed)):
        if record.kind in DUPLICATES:
            assert record.value in seen
        else:
            assert record.value not in seen or record.kind is Kind.NOT_JSON
        seen[record.value] = position


def test_repetitions_come_at_once_or_later() -> None:
    records = sample(LARGE, 1)
    first: dict[bytes, int] = {}
    gaps: dict[Kind, list[int]] = {kind: [] for kind in DUPLICATES}
    for position, record in enumerate(records):
        if record.kind in DUPLICATES:
            original = records[first[record.value]]
            assert original.key == record.key
            assert original.kind not in DEAD_LETTERS
            gaps[record.kind].append(position - first[record.value])
        else:
            first[record.value] = position
    assert max(gaps[Kind.DUPLICATE]) < 5
    assert min(gaps[Kind.LATE_DUPLICATE]) > LARGE / 10


def test_bad_records_are_refused_for_what_they_are() -> None:
    refused: Counter[tuple[Kind, str]] = Counter()
    for record in sample(LARGE, 2):
        try:
            result_of(record)
        except InvalidPayload as error:
            refused[record.kind, "key" if "key" in str(error) else "json"] += 1
    assert set(refused) == {(Kind.WRONG_KEY, "key"), (Kind.NOT_JSON, "json")}
    assert sum(refused.values()) == sum(
        record.kind in (Kind.WRONG_KEY, Kind.NOT_JSON) for record in sample(LARGE, 2)
    )


def valid() -> list[tuple[Sample, AIResult]]:
    return [
        (record, result_of(record))
        for record in sample(LARGE, 3)
        if record.kind not in (Kind.NOT_JSON, Kind.WRONG_KEY)
    ]


def test_only_one_kind_has_no_tenant() -> None:
    for record, result in valid():
        assert (tenant(result) is None) == (record.kind is Kind.UNKNOWN_TENANT)


def test_some_tenants_are_given_some_are_looked_up_and_some_leads_are_strangers() -> None:
    known = {lead.lead_id for lead in leads()}
    found = {
        (result.tenant_id is None, result.lead_id in known)
        for record, result in valid()
        if record.kind is not Kind.UNKNOWN_TENANT
    }
    assert found == {(True, True), (False, True), (False, False)}


def test_each_kind_reaches_its_handler() -> None:
    registry, thresholds = default_registry(), Thresholds()
    for record, result in valid():
        if record.kind in DUPLICATES:
            continue
        message = result.message("tenant-1")
        routed = registry.route(message, thresholds)
        assert routed.handler == HANDLERS[record.kind]
        refused = message.entities.get("product") == DISCONTINUED
        assert refused == (record.kind is Kind.REJECTED_ORDER)


def test_confidence_and_form_vary() -> None:
    orders = [pair for pair in valid() if pair[0].kind is Kind.ORDER_REQUEST]
    assert {result.confidence > 0.8 for _, result in orders} == {True, False}
    assert {b'"payload"' in record.value for record, _ in orders} == {True, False}
    assert {dict(record.headers).keys() >= {"traceparent"} for record, _ in orders} == {
        True,
        False,
    }


def test_ids_of_two_seeds_differ() -> None:
    def ids(seed: int) -> set[str]:
        records = [r for r in sample(100, seed) if r.kind is Kind.ORDER_REQUEST]
        return {result_of(record).processing_id for record in records}

    assert not ids(1) & ids(2)


def test_leads_are_unique() -> None:
    rows = leads()
    assert len({(row.lead_id, row.business_id) for row in rows}) == len(rows) >= 20
    assert {row.tenant_id for row in rows} == {"tenant-1", "tenant-2"}
