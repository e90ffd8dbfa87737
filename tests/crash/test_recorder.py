"""The recorder finds two lasting actions without a point between them, flow by flow."""

from __future__ import annotations

import asyncio

import pytest

from tests.crash.recorder import Entry, flow_of, unseparated


def entries(text: str) -> list[Entry]:
    """``flow:kind:name`` for each word; kinds are a (action) and p (point)."""
    kinds = {"a": "action", "p": "point"}
    split = (word.split(":") for word in text.split())
    return [Entry(flow, kinds[kind], name) for flow, kind, name in split]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("x:a:1 x:p:- x:a:2", []),
        ("x:a:1 x:a:2", [("x", "1", "2")]),
        ("x:a:1 y:p:- x:a:2", [("x", "1", "2")]),
        ("x:a:1 y:a:2", []),
        ("x:p:- x:a:1 y:a:2 y:p:- y:a:3 x:a:4", [("x", "1", "4")]),
        ("x:a:1 x:a:2 x:p:- x:a:3 x:a:4", [("x", "1", "2"), ("x", "3", "4")]),
        ("main:a:1 main:a:2", []),
    ],
)
def test_two_actions_of_one_flow_need_a_point_between(
    text: str, found: list[tuple[str, str, str]]
) -> None:
    assert unseparated(entries(text)) == found


async def test_lanes_and_the_journal_are_one_flow() -> None:
    async def flow() -> str:
        return flow_of(asyncio.current_task())

    lane = asyncio.create_task(flow())
    journal = asyncio.create_task(flow(), name="journal")
    relay = asyncio.create_task(flow(), name="outbox")
    assert await lane == await journal == "saga"
    assert (await relay).startswith("outbox ")
    assert flow_of(None) == "start"
