"""What the payload hash covers: what decides the effects, and nothing else."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any

import pytest

from tests.pipeline.records import envelope, read_result, result


def digest(**changes: Any) -> bytes:
    lead: str = changes.get("lead_id", "lead-1")
    return read_result(result(**changes), lead.encode()).payload_hash


@pytest.mark.parametrize(
    "changes",
    [
        {"lead_id": "lead-2"},
        {"business_id": "business-2"},
        {"tenant_id": "tenant-2"},
        {"tenant_id": None},
        {"intent": {"intent": "COMPLAINT", "confidence": 0.93}},
        {"intent": None},
        {"entities": {"product": "Widget X", "quantity": 101}},
        {"entities": {"product": "Widget X"}},
        {"entities": {"product": "Widget X", "quantity": {"of": 100}}},
        {"entities": None},
        {"original_message": "100 of Widget X please"},
        {"original_message": None},
    ],
)
def test_what_decides_the_effects_changes_the_hash(changes: dict[str, Any]) -> None:
    assert digest(**changes) != digest()


@pytest.mark.parametrize(
    "changes",
    [
        {"processing_id": "p-2"},
        {"intent": {"intent": "ORDER_REQUEST", "confidence": 0.5}},
        {"intent": {"confidence": 0.93, "intent": " ORDER_REQUEST "}},
        {"intent": {"intent": "ORDER_REQUEST", "confidence": 0.93, "model": "x"}},
        {"entities": {"quantity": 100, "product": "Widget X"}},
        {"suggested_actions": ["notify_agent"]},
        {"suggested_response": "No."},
        {"processing_time_ms": 5},
        {"source": "phone"},
        {"reply_to": "1"},
        {"unknown_field": 1},
    ],
)
def test_nothing_else_changes_the_hash(changes: dict[str, Any]) -> None:
    assert digest(**changes) == digest()


def test_fields_do_not_run_into_each_other_in_the_hash() -> None:
    assert digest(business_id="ab", tenant_id="c") != digest(business_id="a", tenant_id="bc")


def test_form_does_not_change_the_hash() -> None:
    ordered = {"a": {"x": 1, "y": [1, {"p": 1, "q": "é"}]}, "b": 2}
    turned = {"b": 2, "a": {"y": [1, {"q": "é", "p": 1}], "x": 1}}
    expected = read_result(result(entities=ordered)).payload_hash
    for document in (result(entities=turned), envelope(result(entities=turned), event_id="e")):
        for text in (
            json.dumps(document),
            json.dumps(document, indent=3),
            json.dumps(document, ensure_ascii=False, sort_keys=True),
        ):
            assert read_result(text.encode()).payload_hash == expected
    swapped = {"a": {"x": 1, "y": [{"p": 1, "q": "é"}, 1]}, "b": 2}
    assert read_result(result(entities=swapped)).payload_hash != expected


def test_the_hash_of_later_versions_is_the_same() -> None:
    # Stored hashes are compared with those of later versions: their form must not change.
    covered = (
        b'["lead-1","business-1","tenant-1","ORDER_REQUEST",'
        b'{"product":"Widget X","quantity":100},"100 of Widget X, please"]'
    )
    assert digest() == sha256(covered).digest()
