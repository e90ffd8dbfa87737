"""Continuity: what was fetched and not delivered comes again before anything behind it."""

from __future__ import annotations

import asyncio

import pytest

from streamapp.worker import continuity as module
from streamapp.worker.continuity import REWIND_AGAIN, STALLED_AFTER, Continuity, Sequence
from tests.worker.fakes import DEADLINE, FakeLog, FakeMembership, settled

P = ("ai-results", 2)


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ASK_AGAIN", 0)


class Bench:
    """A partition whose committed offset is 5 and whose log holds what a test says."""

    def __init__(self, *there: int, committed: int = 5) -> None:
        self.membership, self.log, self.skips = FakeMembership(), FakeLog(), list[str]()
        self.membership.begins[P] = committed
        self.log.there[P] = list(there)
        self.now = 0.0
        self.open = True
        self.sequence = Sequence(*P)
        self.continuity = Continuity(
            self.membership, self.log.first_at, self.skips.append, clock=lambda: self.now
        )

    async def deliver(self, *offsets: int) -> list[int]:
        """Offsets of the records that were taken in."""
        taken = []
        for offset in offsets:
            if await asyncio.wait_for(
                self.continuity.admits(self.sequence, offset, lambda: self.open), DEADLINE
            ):
                self.continuity.took(self.sequence, offset)
                taken.append(offset)
        return taken

    @property
    def seeks(self) -> list[int]:
        assert all((topic, partition) == P for topic, partition, _ in self.membership.seeks)
        return [offset for _, _, offset in self.membership.seeks]


async def test_records_in_order_are_taken_in_and_the_log_is_not_asked() -> None:
    bench = Bench()
    assert await bench.deliver(5, 6, 7) == [5, 6, 7]
    assert bench.log.asked == []


async def test_a_first_record_above_the_committed_offset_sends_the_consumer_back() -> None:
    bench = Bench(5, 6, 7, 8)
    assert await bench.deliver(7, 8) == []
    assert bench.seeks == [5]
    assert bench.skips == ["ai-results"]
    assert await bench.deliver(5, 6, 7, 8) == [5, 6, 7, 8]
    assert len(bench.log.asked) == 1


async def test_without_a_committed_offset_the_log_begins_at_zero() -> None:
    bench = Bench(0, 1, committed=0)
    assert await bench.deliver(1) == []
    assert bench.seeks == [0]


async def test_a_gap_inside_sends_the_consumer_back() -> None:
    bench = Bench(5, 6, 7, 8)
    assert await bench.deliver(5, 8, 6, 7, 8) == [5, 6, 7, 8]
    assert bench.seeks == [6]


@pytest.mark.parametrize("there", [(9,), (9, 10), ()])
async def test_offsets_that_the_log_does_not_have_are_not_waited_for(there: tuple[int]) -> None:
    """Compaction, transaction markers, retention: the log goes on further up."""
    bench = Bench(*there)
    assert await bench.deliver(9, 10) == [9, 10]
    assert bench.seeks == []
    assert bench.skips == []


async def test_a_gap_that_the_consumer_saw_itself_needs_no_look_into_the_log() -> None:
    bench = Bench(5, 7, 9)
    bench.membership.neighbours |= {(5, 7), (7, 9)}
    assert await bench.deliver(5, 7, 9) == [5, 7, 9]
    assert bench.log.asked == []


async def test_a_record_missing_before_such_a_gap_is_gone_back_to() -> None:
    bench = Bench(5, 7, 9)
    bench.membership.neighbours |= {(5, 7), (7, 9)}
    assert await bench.deliver(5, 9, 7, 9) == [5, 7, 9]
    assert bench.seeks == [7]


async def test_only_what_is_there_is_gone_back_to() -> None:
    bench = Bench(7, 9)
    assert await bench.deliver(9) == []
    assert bench.seeks == [7]
    assert await bench.deliver(7) == [7]
    assert await bench.deliver(9) == [9], "8 is not in the log"


async def test_a_repetition_is_passed_over() -> None:
    bench = Bench()
    assert await bench.deliver(5, 5, 6, 5, 6, 7) == [5, 6, 7]


async def test_a_record_of_before_the_committed_offset_is_stale() -> None:
    bench = Bench()
    bench.membership.highwaters[P] = 8
    assert await bench.deliver(3, 4, 5) == [5]


async def test_a_log_that_lost_records_is_read_anew() -> None:
    """After an unclean election the committed offset may lie beyond the end."""
    bench = Bench(0, 1, 2)
    bench.membership.highwaters[P] = 3
    assert await bench.deliver(0, 1, 2) == [0, 1, 2]


async def test_the_consumer_is_sent_back_again_when_it_did_not_go() -> None:
    bench = Bench(5, 6, 7, 8)
    await bench.deliver(7)
    bench.now += REWIND_AGAIN - 0.1
    await bench.deliver(8)
    assert bench.seeks == [5]
    bench.now += 0.2
    await bench.deliver(8)
    assert bench.seeks == [5, 5]
    assert len(bench.skips) == 1


async def test_a_broker_that_is_away_is_waited_for() -> None:
    bench = Bench(5, 6)
    bench.log.away = True
    delivery = asyncio.create_task(bench.deliver(6))
    await settled()
    assert not delivery.done()
    bench.log.away = False
    assert await asyncio.wait_for(delivery, DEADLINE) == []
    assert bench.seeks == [5]


async def test_nobody_waits_for_the_broker_once_the_partition_is_given_up() -> None:
    bench = Bench(5, 6)
    bench.log.away = True
    delivery = asyncio.create_task(bench.deliver(6))
    await settled()
    bench.open = False
    assert await asyncio.wait_for(delivery, DEADLINE) == []
    assert bench.seeks == []


class Lost(Bench):
    """Record 6 is the last of the log; the consumer handed it out, and it did not arrive."""

    def __init__(self, *there: int) -> None:
        super().__init__(*there)
        self.membership.positions[P] = 7

    async def look(self, *, polls: int | None, seconds: float = STALLED_AFTER) -> None:
        """One look, so many seconds after the one before, after so many polls."""
        self.now += seconds
        self.membership.polls = polls
        await self.continuity.revive(self.sequence)


async def test_records_missing_at_the_end_of_the_log_are_gone_back_to() -> None:
    bench = Lost(5, 6)
    await bench.deliver(5)
    await bench.look(polls=3)
    await bench.look(polls=4, seconds=STALLED_AFTER - 0.1)
    assert bench.seeks == []
    await bench.look(polls=4, seconds=0.1)
    assert bench.seeks == [6]
    assert bench.skips == ["ai-results"]
    await bench.look(polls=5)
    assert bench.seeks == [6], "the consumer gets time to go back"
    assert await bench.deliver(6) == [6]


async def test_a_record_may_be_on_its_way_for_as_long_as_its_poll_is_being_handed_over() -> None:
    bench = Lost(5, 6)
    await bench.deliver(5)
    for _ in range(5):
        await bench.look(polls=3, seconds=10 * STALLED_AFTER)
    assert bench.log.asked == []


async def test_a_record_that_waits_for_the_agent_is_not_missing() -> None:
    bench = Lost(5, 6)
    await bench.deliver(5)
    await bench.look(polls=3)
    await bench.look(polls=None)
    await bench.look(polls=4)
    assert bench.log.asked == [], "only from now on it counts as missing"
    await bench.look(polls=5)
    assert bench.seeks == [6]


async def test_a_record_that_the_consumer_has_not_handed_out_is_not_missing() -> None:
    bench = Lost(5, 6)
    bench.membership.positions[P] = 6
    await bench.deliver(5)
    for poll in range(5):
        await bench.look(polls=poll)
    assert bench.log.asked == []


async def test_a_partition_that_goes_on_has_nothing_missing() -> None:
    bench = Lost(5, 6, 7, 8)
    bench.membership.positions[P] = 9
    for poll, offset in enumerate((5, 6, 7, 8)):
        await bench.deliver(offset)
        await bench.look(polls=poll)
    assert bench.log.asked == []


async def test_the_end_of_the_log_is_no_reason_to_go_back() -> None:
    bench = Lost(5)  # a transaction marker, say
    await bench.deliver(5)
    for poll in range(5):
        await bench.look(polls=poll)
    assert len(bench.log.asked) > 0
    assert bench.seeks == []
