"""Ids that follow from what they name: the same for ever, and another for each of its parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid5

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamapp.saga import ids
from streamapp.saga.ids import dead_letter_id, idempotency_key, row_id

PARTS: dict[Callable[..., str], tuple[tuple[Any, ...], tuple[Any, ...]]] = {
    idempotency_key: (("p-1", 0, "order", "task", "forward"), ("p-2", 1, "x", "y", "compensate")),
    row_id: (("task", "p-1", 0, "order", "task"), ("activity", "p-2", 1, "x", "y")),
    dead_letter_id: (("topic:0:5", 17, "order", 0), ("topic:0:6", 18, "", 1)),
}


@pytest.mark.parametrize("make", PARTS)
def test_each_part_makes_another_key(make: Callable[..., str]) -> None:
    parts, others = PARTS[make]
    ids = {make(*parts)}
    for position, other in enumerate(others):
        ids.add(make(*parts[:position], other, *parts[position + 1 :]))
    assert len(ids) == 1 + len(parts)
    assert make(*parts) == make(*parts)


def test_parts_do_not_run_into_each_other() -> None:
    """They come from outside and may hold anything."""
    assert row_id("task", "p-1", 1, "2a") != row_id("task", "p-1", 12, "a")
    assert row_id("task", "p", 0, "ab", "c") != row_id("task", "p", 0, "a", "bc")
    first = idempotency_key("p-1", 0, "order", "", "forward")
    assert first != idempotency_key("p-", 10, "order", "", "forward")


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_an_id_is_a_uuid_of_version_5(processing_id: str) -> None:
    name = "".join(
        f"{len(part)}:{part}" for part in ("task", processing_id, "0", "create_order", "")
    )
    made = row_id("task", processing_id, 0, "create_order")
    assert made == str(uuid5(UUID(bytes=ids._NAMESPACE), name))


def test_a_key_and_an_id_of_the_same_parts_differ() -> None:
    assert row_id("key", "p", 0, "a", "b") != idempotency_key("p", 0, "a", "b", "forward")


def test_ids_do_not_change_with_a_version() -> None:
    """They are in the journal, at the services and in the mails of what is under way."""
    assert (
        idempotency_key("p-1", 0, "create_order", "service", "forward")
        == "3432b8d2-ae7b-514a-ab49-7d350673c5ed"
    )
    assert (
        row_id("task", "p-1", 0, "create_order", "task") == "0e22e45b-96bd-5b8f-84fb-e32fcee7dbc2"
    )
    assert (
        dead_letter_id("ai-results:3:17", 1_700_000_000_000, "", 0)
        == "e0c6233b-7191-51a6-9dcf-f78165127df8"
    )
