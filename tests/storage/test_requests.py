"""Requests on stuck sagas: taken in, found by the owner, refused where there is nothing to do."""

from __future__ import annotations

import asyncio

import pytest

from streamapp.saga.model import SagaStatus
from streamapp.storage.operations import Refused, Unknown
from streamapp.storage.requests import MAX_REASON, RequestKind, SagaRequests
from tests.storage.writes import claim, state_of
from tests.support.bench import Bench
from tests.support.sagas import GROUP, TOPIC

RESUME, RESOLVE = RequestKind.RESUME, RequestKind.RESOLVE


@pytest.fixture
def requests(bench: Bench) -> SagaRequests:
    return SagaRequests(bench.pool, GROUP, TOPIC)


async def put(bench: Bench, name: str, status: SagaStatus, partition: int = 0) -> None:
    epoch = await bench.take_over(partition)
    await bench.journal.write(claim(epoch, state_of(name, partition=partition), status=status))


async def test_a_request_waits_for_the_owner_of_the_partition(
    bench: Bench, requests: SagaRequests
) -> None:
    for name, partition in (("first", 0), ("second", 1), ("elsewhere", 2)):
        await put(bench, name, SagaStatus.STUCK, partition)
    await requests.ask(RESOLVE, "second", "ann", " dealt with ")
    await requests.ask(RESUME, "first", "bob")
    await requests.ask(RESUME, "elsewhere", "bob")
    await requests.ask(RESUME, "second", "bob")
    assert await requests.waiting([0, 1], 10) == [
        ("second", 1, b"lead of second"),
        ("first", 0, b"lead of first"),
    ]
    assert [name for name, _, _ in await requests.waiting([0, 1], 1)] == ["second"]
    assert await requests.waiting([], 10) == []
    found = await requests.next("second")
    assert found is not None
    assert (found.kind, found.actor) == (RESOLVE, "ann")
    assert await requests.next("nobody") is None
    reason = await bench.pool.fetchval("select reason from saga_requests order by request_id")
    assert reason == "dealt with"


async def test_other_groups_and_topics_are_others_business(
    bench: Bench, requests: SagaRequests
) -> None:
    await put(bench, "stuck", SagaStatus.STUCK)
    for group, topic in ((GROUP, "another"), ("another", TOPIC)):
        others = SagaRequests(bench.pool, group, topic)
        with pytest.raises(Refused, match="belongs to"):
            await others.ask(RESUME, "stuck", "bob")
    await requests.ask(RESUME, "stuck", "bob")
    assert await SagaRequests(bench.pool, "another", TOPIC).waiting([0], 10) == []


async def test_asked_twice_at_once_it_is_one_request(bench: Bench, requests: SagaRequests) -> None:
    await put(bench, "stuck", SagaStatus.STUCK)
    asked = await asyncio.gather(*(requests.ask(RESUME, "stuck", "bob") for _ in range(3)))
    assert len({one.request_id for one in asked}) == 1
    assert sorted(one.repeated for one in asked) == [False, True, True]
    other = await requests.ask(RESOLVE, "stuck", "ann", "because")
    assert not other.repeated
    audited = await bench.pool.fetch("select action, details->>'repeated' as r from audit_log")
    assert sorted(tuple(row) for row in audited) == [
        ("saga.resolve", "false"),
        ("saga.resume", "false"),
        ("saga.resume", "true"),
        ("saga.resume", "true"),
    ]
    await bench.pool.execute("update saga_requests set carried_out_at = now()")
    again = await requests.ask(RESUME, "stuck", "bob")
    assert not again.repeated, "the first one is done: this is another"


@pytest.mark.parametrize("status", [s for s in SagaStatus if s is not SagaStatus.STUCK])
async def test_only_a_stuck_saga_can_be_asked_about(
    bench: Bench, requests: SagaRequests, status: SagaStatus
) -> None:
    await put(bench, "p-1", status)
    with pytest.raises(Refused, match=f"is {status}, not STUCK"):
        await requests.ask(RESUME, "p-1", "bob")
    with pytest.raises(Unknown, match="'nobody'"):
        await requests.ask(RESUME, "nobody", "bob")
    assert await bench.pool.fetchval("select count(*) from audit_log") == 0


@pytest.mark.parametrize("reason", [None, "", "  ", "x" * (MAX_REASON + 1), "a\0b"])
async def test_resolving_needs_a_reason(
    bench: Bench, requests: SagaRequests, reason: str | None
) -> None:
    await put(bench, "p-1", SagaStatus.STUCK)
    with pytest.raises(Refused, match="reason"):
        await requests.ask(RESOLVE, "p-1", "bob", reason)
