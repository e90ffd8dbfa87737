"""What the consumer handed out one after the other has nothing between it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from faust.types import TP

from streamapp.worker.polls import Polls

P = TP("ai-results", 1)


def poll(*offsets: int, partition: TP = P) -> dict[TP, list[Any]]:
    return {partition: [SimpleNamespace(offset=offset) for offset in offsets]}


def test_a_gap_within_a_poll_and_between_two_is_known() -> None:
    polls = Polls()
    polls.note(poll(5, 6, 8))
    polls.note(None)
    polls.note(poll(10, 11))
    assert polls.adjacent("ai-results", 1, 6, 8)
    assert polls.adjacent("ai-results", 1, 8, 10)


def test_nothing_is_known_of_what_was_not_handed_out_together() -> None:
    polls = Polls()
    polls.note(poll(5, 7))
    polls.note(poll(9, partition=TP("ai-results", 2)))
    assert not polls.adjacent("ai-results", 1, 4, 7)
    assert not polls.adjacent("ai-results", 1, 5, 8)
    assert not polls.adjacent("ai-results", 2, 7, 9)
    assert not polls.adjacent("other", 1, 5, 7)


def test_going_back_is_no_gap() -> None:
    polls = Polls()
    polls.note(poll(5, 6, 7))
    polls.note(poll(6, 7, 9))
    assert polls.adjacent("ai-results", 1, 7, 9)
    assert not polls.adjacent("ai-results", 1, 7, 6)


def test_what_is_remembered_is_bounded() -> None:
    polls = Polls(max_gaps=2)
    polls.note(poll(1, 3, 5, 7))
    assert not polls.adjacent("ai-results", 1, 1, 3)
    assert polls.adjacent("ai-results", 1, 3, 5)
    assert polls.adjacent("ai-results", 1, 5, 7)
