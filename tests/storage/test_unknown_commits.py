"""A COMMIT whose outcome nobody was told, at every write of a saga, and whoever comes next."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from streamapp.saga.journal import Journal, Written
from streamapp.saga.model import Fenced, SagaState, SagaStatus, SagaWrite, StepStatus
from streamapp.services.errors import Rejected
from streamapp.storage.journal import PostgresJournal
from tests.storage.locks import locked, waiters
from tests.storage.writes import NOTHING, ONE, claim, counts, state_of, task, transactions, update
from tests.support.bench import Bench, running_journal
from tests.support.proxy import AtCommit, Proxy, proxy_to
from tests.support.sagas import external, own, saga
from tests.support.waiting import until, until_async

LOSSES = [AtCommit.LOSE_REQUEST, AtCommit.LOSE_REPLY]


@pytest.fixture
async def proxy(database: str) -> AsyncIterator[Proxy]:
    async with proxy_to(database) as proxy:
        yield proxy


@pytest.fixture
async def journal(proxy: Proxy) -> AsyncIterator[PostgresJournal]:
    """A journal that reaches the database through the proxy, and is connected."""
    async with running_journal(proxy.dsn) as journal:
        with pytest.raises(Fenced):
            await journal.write(claim(0))
        yield journal


class Losing:
    """A journal that loses the COMMIT of its n-th write."""

    def __init__(self, journal: Journal, proxy: Proxy, loss: AtCommit, number: int) -> None:
        self._journal = journal
        self._proxy = proxy
        self._loss = loss
        self._number = number
        self.writes: list[SagaWrite] = []

    async def write(self, write: SagaWrite) -> Written:
        self.writes.append(write)
        if len(self.writes) == self._number:
            self._proxy.at_commit = self._loss
        return await self._journal.write(write)

    async def load(self, processing_id: str) -> SagaState | None:
        return await self._journal.load(processing_id)


def plan(*, rejected: bool = False) -> SagaState:
    """Own and external steps in turn. Claim with STARTED, DONE with STARTED, the end."""
    return saga(
        own("note"),
        external("order"),
        own("task"),
        external("refused" if rejected else "invoice"),
        own("last", reply=True),
    )


# Every write of a saga


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("number", [1, 2, 3])
async def test_a_saga_with_an_unknown_commit_has_each_effect_once(
    bench: Bench, journal: PostgresJournal, proxy: Proxy, loss: AtCommit, number: int
) -> None:
    losing = Losing(journal, proxy, loss, number)
    state = await bench.deliver(plan(), bench.executor(journal=losing))
    assert proxy.lost == 1
    assert state.status is SagaStatus.COMPLETED
    assert await bench.steps() == {
        (name, "forward"): "DONE" for name in ("note", "order", "task", "invoice", "last")
    }
    assert bench.service.names() == ["order", "invoice"]
    # An unknown outcome spends no attempt, though STARTED may have to be written anew.
    assert {(await bench.step(n))["attempts"] for n in (1, 3)} == {1}
    assert not (await bench.step(1))["in_doubt"]
    assert len(await bench.pool.fetch("select * from outbox")) == 1
    assert await bench.letters() == []
    assert await bench.processed() == "success"


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("number", [3, 4, 5])
async def test_a_compensation_with_an_unknown_commit_undoes_each_effect_once(
    bench: Bench, journal: PostgresJournal, proxy: Proxy, loss: AtCommit, number: int
) -> None:
    """COMPENSATING, STARTED of the cancellation, the end with its dead letter."""
    bench.service.plan("refused", Rejected("not sold"))
    losing = Losing(journal, proxy, loss, number)
    state = await bench.deliver(plan(rejected=True), bench.executor(journal=losing))
    assert proxy.lost == 1
    assert state.status is SagaStatus.COMPENSATED
    assert bench.service.names() == ["order", "refused", "-order"]
    assert bench.service.effects == set()
    assert len(await bench.letters()) == 1
    assert await bench.processed() == "failed"


# A second owner in between


@pytest.mark.parametrize("number", [1, 2, 3])
async def test_the_next_owner_goes_on_from_an_unknown_commit_that_was_made(
    bench: Bench, journal: PostgresJournal, proxy: Proxy, number: int
) -> None:
    """The first owner meets its own row under an epoch that is gone, and leaves it alone."""
    proxy.refuse_after_loss = True
    losing = Losing(journal, proxy, AtCommit.LOSE_REPLY, number)
    first = asyncio.create_task(bench.deliver(plan(), bench.executor(journal=losing)))
    await until(lambda: proxy.refused >= 1)
    await bench.take_over()
    before = len(bench.service.calls)
    state = await bench.deliver(plan())  # redelivered
    assert state.status is SagaStatus.COMPLETED
    proxy.accept()
    with pytest.raises(Fenced):
        await first
    assert bench.service.names() == ["order", "invoice"]
    assert len(bench.service.calls) - before == 3 - number
    assert {(await bench.step(n))["status"] for n in range(5)} == {"DONE"}
    assert len(await bench.pool.fetch("select * from outbox")) == 1
    assert (await bench.saga())["epoch"] == (bench.epoch - 1 if number == 3 else bench.epoch)


async def test_the_next_owner_starts_from_nothing_where_the_commit_was_not_made(
    bench: Bench, journal: PostgresJournal, proxy: Proxy
) -> None:
    proxy.refuse_after_loss = True
    losing = Losing(journal, proxy, AtCommit.LOSE_REQUEST, 1)
    first = asyncio.create_task(bench.deliver(plan(), bench.executor(journal=losing)))
    await until(lambda: proxy.refused >= 1)
    await bench.take_over()
    assert await counts(bench.pool) == NOTHING
    await bench.deliver(plan())
    proxy.accept()
    with pytest.raises(Fenced):
        await first
    assert bench.service.names() == ["order", "invoice"]
    assert (await bench.saga())["status"] == "COMPLETED"


# The record comes again


@pytest.mark.parametrize("number", [1, 2, 3])
async def test_a_redelivery_after_an_unknown_commit_takes_the_saga_over(
    bench: Bench, journal: PostgresJournal, proxy: Proxy, number: int
) -> None:
    """The lane was cancelled while it waited for the outcome, and the partition came back."""
    proxy.refuse_after_loss = True
    losing = Losing(journal, proxy, AtCommit.LOSE_REPLY, number)
    first = asyncio.create_task(bench.deliver(plan(), bench.executor(journal=losing)))
    await until(lambda: proxy.refused >= 1)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    proxy.accept()
    state = await bench.deliver(plan(), bench.executor(journal=journal))
    assert state.status is SagaStatus.COMPLETED
    assert bench.service.names() == ["order", "invoice"]
    assert {(await bench.step(n))["attempts"] for n in (1, 3)} == {1}
    assert len(await bench.pool.fetch("select * from outbox")) == 1


# The COMMIT is still under way

SLOW_COMMIT = """
create function wait() returns trigger language plpgsql as
    'begin perform pg_advisory_xact_lock_shared(7); return null; end';
create constraint trigger wait after insert or update on sagas
    deferrable initially deferred for each row execute function wait();
"""


@pytest.mark.parametrize("claiming", [True, False])
async def test_a_commit_that_is_still_under_way_is_waited_for(
    bench: Bench, proxy: Proxy, claiming: bool
) -> None:
    """The connection broke, the server works on: what looks absent may be there in a moment."""
    state = state_of()
    if not claiming:
        await bench.journal.write(claim(bench.epoch, state))
    await bench.pool.execute(SLOW_COMMIT)
    async with running_journal(proxy.dsn, lock_timeout=30, statement_timeout=30) as journal:
        async with locked(bench.pool, "select pg_advisory_xact_lock(7)"):
            write = claim(bench.epoch, state) if claiming else update(bench.epoch, state, task("t"))
            writing = asyncio.create_task(journal.write(write))
            await waiters(bench.pool, 1)
            proxy.cut()
            if claiming:
                await waiters(bench.pool, 2)  # it meets its own row, which nobody sees yet
            else:
                await until_async(lambda: is_connected_again(bench))
            assert not writing.done()
        written = await asyncio.wait_for(writing, 20)
    assert written.existing is None
    assert written.at == 0
    if claiming:
        assert await counts(bench.pool) == ONE
        assert len(await transactions(bench.pool)) == 1
    else:
        assert set(await bench.tasks()) == {"task of p-1", "t"}
        assert (await bench.step(1))["status"] == StepStatus.DONE


async def is_connected_again(bench: Bench) -> bool:
    """Two sessions of the journal's: the one that commits, and one after it."""
    count: int = await bench.pool.fetchval(
        "select count(*) from pg_stat_activity where application_name like 'streamapp-journal%' "
        "and datname = current_database() and query <> ''"
    )
    return count >= 3  # the bench's own journal has one
