"""What people ask of STUCK sagas: done once by the owner, noted in the commit that does it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from streamapp.pipeline.dead_letter import parse_headers
from streamapp.pipeline.outcomes import Record
from streamapp.saga.model import CarriedOut, Fenced, SagaState
from streamapp.services.errors import Rejected
from streamapp.storage.batch import headers_from_json
from streamapp.storage.dead_letters import DeadLetterStore
from streamapp.storage.requests import Asked, RequestKind, SagaRequests
from tests.support.bench import Bench, Points, PointsJournal
from tests.support.sagas import (
    DLQ,
    GROUP,
    TOPIC,
    Call,
    NewServiceSteps,
    OwnSteps,
    ServiceSteps,
    external,
    own,
    registry_of,
    saga,
    task_id,
)

RESUME, RESOLVE = RequestKind.RESUME, RequestKind.RESOLVE


@pytest.fixture
def requests(bench: Bench) -> SagaRequests:
    return SagaRequests(bench.pool, GROUP, TOPIC)


async def stuck(bench: Bench, name: str = "p-1", failures: int = 1, offset: int = 0) -> SagaState:
    """A saga whose undoing of ``b`` fails so many times."""
    bench.service.plan("c", Rejected("no"))
    bench.service.plan("b", *(Rejected("too late") for _ in range(failures)), undo=True)
    steps = (own("a"), external("b"), external("c"))
    await bench.deliver(saga(*steps, processing_id=name, offset=offset))
    return await bench.load(name)


def carried_out(asked: Asked, result: str) -> CarriedOut:
    return CarriedOut(asked.request_id, asked.kind.value, "operator", "worker", result)


async def post(bench: Bench, processing_id: str = "p-1") -> list[bool]:
    """The saga's letters arrive in the table."""
    store = DeadLetterStore(bench.pool)
    news = []
    for row in await bench.pool.fetch("select * from outbox where topic = $1 order by id", DLQ):
        headers = headers_from_json(row["headers"])
        letter = parse_headers(headers)
        if letter is not None and letter.processing_id == processing_id:
            news.append(
                await store.store(Record(DLQ, 0, 0, 1, row["key"], row["value"], headers), letter)
            )
    return news


async def letter_row(bench: Bench, processing_id: str = "p-1") -> Any:
    return await bench.pool.fetchrow(
        "select * from dead_letter_queue where message_id = $1", processing_id
    )


async def results(bench: Bench) -> list[str | None]:
    rows = await bench.pool.fetch("select result from saga_requests order by request_id")
    return [row["result"] for row in rows]


async def audited(bench: Bench) -> list[tuple[str, str, str]]:
    rows = await bench.pool.fetch("select * from audit_log order by audit_id")
    return [(row["actor"], row["action"], row["target"]) for row in rows]


async def test_a_resume_is_noted_in_the_commit_that_begins_it(
    bench: Bench, requests: SagaRequests
) -> None:
    state = await stuck(bench)
    asked = await requests.ask(RESUME, "p-1", "operator")
    seen = []

    async def before(call: Call) -> None:
        seen.append(((await bench.saga())["status"], await results(bench)))

    bench.service.before = before
    await bench.executor().resume(state, bench.epoch, bench.place, carried_out(asked, "resumed"))
    assert seen == [("COMPENSATING", ["resumed"])]
    assert (await bench.saga())["status"] == "COMPENSATED"
    assert await audited(bench) == [
        ("operator", "saga.resume", "p-1"),
        ("worker", "saga.resume.carried_out", "p-1"),
    ]
    details = await bench.pool.fetchval("select details from audit_log order by audit_id desc")
    assert json.loads(details) == {
        "request_id": asked.request_id,
        "asked_by": "operator",
        "result": "resumed",
        "run": 0,
    }
    assert await requests.next("p-1") is None


async def test_a_request_is_carried_out_once_whoever_owns_the_partition(
    bench: Bench, requests: SagaRequests
) -> None:
    """Another owner had the partition meanwhile: it resumed the saga, which got stuck again."""
    old = await stuck(bench, failures=3)
    asked = await requests.ask(RESUME, "p-1", "operator")
    request = carried_out(asked, "resumed")
    await bench.executor().resume(await bench.load(), bench.epoch, bench.place, request)
    assert (await bench.saga())["status"] == "STUCK"
    calls = len(bench.service.calls)
    with pytest.raises(Fenced):
        await bench.executor().resume(old, bench.epoch, bench.place, request)
    with pytest.raises(Fenced):
        await bench.executor().resolve(await bench.load(), bench.epoch, request)
    assert len(bench.service.calls) == calls
    assert (await bench.saga())["status"] == "STUCK"
    assert len(await audited(bench)) == 2


@pytest.mark.parametrize("kind", [RESUME, RESOLVE])
async def test_who_is_not_the_owner_carries_nothing_out(
    bench: Bench, requests: SagaRequests, kind: RequestKind
) -> None:
    state = await stuck(bench)
    asked = await requests.ask(kind, "p-1", "operator", "because")
    old = bench.epoch
    await bench.take_over()
    request = carried_out(asked, "done")
    carrying_out = (
        bench.executor().resume(state, old, bench.place, request)
        if kind is RESUME
        else bench.executor().resolve(state, old, request)
    )
    with pytest.raises(Fenced):
        await carrying_out
    with pytest.raises(Fenced):
        await bench.executor().refuse(await bench.load(), old, request)
    assert await results(bench) == [None]
    assert (await bench.saga())["status"] == "STUCK"
    assert (await requests.next("p-1")) is not None, "it waits for the owner"


async def test_a_refusal_is_noted_and_changes_nothing(bench: Bench, requests: SagaRequests) -> None:
    state = await stuck(bench)
    asked = await requests.ask(RESOLVE, "p-1", "operator", "done by hand")
    await bench.executor().resume(state, bench.epoch, bench.place)  # it healed by itself
    healed = await bench.load()
    await bench.executor().refuse(healed, bench.epoch, carried_out(asked, "refused: COMPENSATED"))
    assert (await bench.saga())["status"] == "COMPENSATED"
    assert await results(bench) == ["refused: COMPENSATED"]
    assert await bench.load() == healed


async def test_resolved_is_an_end_of_its_own(bench: Bench, requests: SagaRequests) -> None:
    state = await stuck(bench, failures=9)
    await post(bench)
    assert (await letter_row(bench))["status"] == "failed"
    asked = await requests.ask(RESOLVE, "p-1", "operator", "cancelled by phone")
    effects, calls = set(bench.service.effects), len(bench.service.calls)
    await bench.executor().resolve(state, bench.epoch, carried_out(asked, "resolved"))
    row = await bench.saga()
    assert (row["status"], row["reason"]) == ("RESOLVED", "compensation_stuck")
    assert row["finished_at"] is not None
    assert row["resume_at"] is None
    # Nothing was undone by it, and nothing says so.
    assert (bench.service.effects, len(bench.service.calls)) == (effects, calls)
    assert await bench.tasks() == {task_id("p-1", "a"): "pending"}
    assert await bench.processed() == "failed"
    assert (await letter_row(bench))["status"] == "resolved"
    assert await post(bench) == [False]
    assert bench.observer.of("saga")[-1] == ("RESOLVED", "compensation_stuck")
    assert (await bench.deliver(saga(offset=9))).status == "RESOLVED"
    assert len(bench.service.calls) == calls


async def test_a_letter_that_comes_after_its_saga_was_resolved_is_resolved(
    bench: Bench, requests: SagaRequests
) -> None:
    state = await stuck(bench)
    asked = await requests.ask(RESOLVE, "p-1", "operator", "cancelled by phone")
    await bench.executor().resolve(state, bench.epoch, carried_out(asked, "resolved"))
    row = await letter_row(bench)
    assert (row["status"], row["letter_ids"], row["lead_id"]) == ("resolved", [], "lead-1")
    assert await post(bench) == [True], "it fills the row in"
    row = await letter_row(bench)
    assert (row["status"], len(row["letter_ids"])) == ("resolved", 1)
    assert (row["reason"], row["attempt_count"]) == ("compensation_stuck", 1)
    assert json.loads(row["original_payload"]) == {"raw": "bytes"}
    assert await post(bench) == [False]


async def test_a_letter_that_comes_after_its_saga_went_on_is_resolved(bench: Bench) -> None:
    """Parked for want of code, and completed by a worker that has it: before the letter came."""
    state = saga(own("a"), external("b", version=2))
    old = registry_of(OwnSteps(), ServiceSteps(bench.service))
    await bench.deliver(state, bench.executor(registry=old))
    assert state.status == "STUCK"
    new = registry_of(OwnSteps(), NewServiceSteps(bench.service))
    await bench.executor(registry=new).resume(await bench.load(), bench.epoch, bench.place)
    assert (await bench.saga())["status"] == "COMPLETED"
    assert await post(bench) == [True]
    row = await letter_row(bench)
    assert (row["status"], row["reason"]) == ("resolved", "plan_changed")


async def test_a_saga_that_never_had_a_letter_settles_nothing(bench: Bench) -> None:
    await bench.deliver(saga(own("a")))
    assert await letter_row(bench) is None


async def test_an_undone_saga_leaves_its_letter_open(bench: Bench, requests: SagaRequests) -> None:
    state = await stuck(bench)
    await post(bench)
    asked = await requests.ask(RESUME, "p-1", "operator")
    await bench.executor().resume(state, bench.epoch, bench.place, carried_out(asked, "resumed"))
    assert (await bench.saga())["status"] == "COMPENSATED"
    assert (await letter_row(bench))["status"] == "failed"


async def passage(bench: Bench, requests: SagaRequests, name: str, cut: int) -> Points:
    """An owner takes up what it finds: the request, or the saga that was left on its way."""
    points = Points(cut)

    async def reach(call: Call) -> None:
        await points.reach()

    bench.service.before = bench.service.after = reach
    await bench.take_over()
    executor = bench.executor(journal=PointsJournal(bench.journal, points))
    state = await bench.load(name)
    request = await requests.next(name)
    if request is not None:
        done = CarriedOut(request.request_id, request.kind.value, "operator", "worker", "done")
        if request.kind is RESUME:
            await executor.resume(state, bench.epoch, bench.place, done)
        else:
            await executor.resolve(state, bench.epoch, done)
    elif state.status in ("RUNNING", "COMPENSATING"):
        await executor.run(state, bench.epoch, bench.place, claim=False)
    return points


@pytest.mark.parametrize(("kind", "end"), [(RESUME, "COMPENSATED"), (RESOLVE, "RESOLVED")])
async def test_a_request_cut_anywhere_is_carried_out_once(
    bench: Bench, requests: SagaRequests, kind: RequestKind, end: str
) -> None:
    async def prepare(name: str, offset: int) -> None:
        bench.service.before = bench.service.after = None
        await bench.take_over()
        await stuck(bench, name, offset=offset)
        await requests.ask(kind, name, "operator", "because")

    await prepare("uncut", 1)
    uncut = (await passage(bench, requests, "uncut", 0)).reached
    for cut in range(1, uncut + 1):
        name = f"cut at {cut}"
        await prepare(name, 10 + cut)
        with pytest.raises(asyncio.CancelledError):
            await passage(bench, requests, name, cut)
        await passage(bench, requests, name, 0)
        assert (await bench.saga(name))["status"] == end
        lines = [line for line in await audited(bench) if line[2] == name]
        assert [line[1] for line in lines] == [f"saga.{kind}", f"saga.{kind}.carried_out"]
    assert set(await results(bench)) == {"done"}


async def test_requests_of_many_sagas_share_a_commit(bench: Bench, requests: SagaRequests) -> None:
    names = [f"p-{number}" for number in range(5)]
    states = [await stuck(bench, name, offset=number) for number, name in enumerate(names)]
    asked = [await requests.ask(RESOLVE, name, "operator", "because") for name in names]
    executor = bench.executor()
    await asyncio.gather(
        *(
            executor.resolve(state, bench.epoch, carried_out(one, "resolved"))
            for state, one in zip(states, asked, strict=True)
        )
    )
    for table in ("sagas", "saga_requests", "dead_letter_queue"):
        rows = await bench.pool.fetch(f"select xmin::text from {table}")
        assert len(rows) == 5
        # The first one goes alone, the others wait for it and go together.
        assert len({row["xmin"] for row in rows}) <= 2
    assert [(await bench.saga(name))["status"] for name in names] == ["RESOLVED"] * 5
    assert await results(bench) == ["resolved"] * 5
