"""The journal next to other transactions: a locked row holds up its own write and no other."""

from __future__ import annotations

import asyncio

import pytest

from streamapp.saga.journal import Written
from streamapp.saga.model import Fenced, SagaState, SagaStatus, SagaWrite
from streamapp.saga.operations import CancelTask, RestoreLeadStatus, SetLeadStatus
from streamapp.storage.connection import Pool
from streamapp.storage.journal import PostgresJournal
from streamapp.storage.owners import raise_epoch
from tests.storage.locks import locked, nobody_waits, waiters
from tests.storage.writes import claim, state_of, task, update
from tests.support.bench import Bench, running_journal
from tests.support.sagas import GROUP, TOPIC
from tests.support.waiting import until, until_async


async def add_lead(pool: Pool, state: SagaState, status: str = "new") -> None:
    about = state.message
    await pool.execute(
        "insert into leads values ($1, $2, $3, $4)",
        about.lead_id,
        about.business_id,
        about.tenant_id,
        status,
    )


async def lead_status(pool: Pool, state: SagaState) -> str | None:
    status: str | None = await pool.fetchval(
        "select status from leads where lead_id = $1", state.message.lead_id
    )
    return status


def lock_of(state: SagaState) -> str:
    return f"select 1 from leads where lead_id = '{state.message.lead_id}' for update"


async def set_apart(
    journal: PostgresJournal, epoch: int, *writes: SagaWrite
) -> list[asyncio.Task[Written]]:
    """Start writes that meet a lock; on return they wait apart from the others."""
    tasks = [asyncio.create_task(journal.write(write)) for write in writes]
    free = claim(epoch, state_of(f"free {id(tasks)}"))
    async with asyncio.timeout(10):
        await journal.write(free)  # in their batch, or in one after it
    assert not any(task.done() for task in tasks)
    return tasks


async def test_a_locked_lead_does_not_hold_up_the_others(bench: Bench, database: str) -> None:
    slow, quick = state_of("slow"), state_of("quick")
    await add_lead(bench.pool, slow)
    await add_lead(bench.pool, quick)
    reports: list[BaseException | None] = []
    # Nobody is to wait for the lock, so there is no end to such a wait here.
    async with running_journal(
        database, reports.append, lock_timeout=60, statement_timeout=60
    ) as journal:
        async with locked(bench.pool, lock_of(slow)):
            (write,) = await set_apart(
                journal, bench.epoch, claim(bench.epoch, slow, SetLeadStatus("seen"))
            )
            async with asyncio.timeout(10):
                await journal.write(claim(bench.epoch, quick, SetLeadStatus("seen")))
                for number in range(5):
                    await journal.write(claim(bench.epoch, state_of(f"later {number}")))
            assert await lead_status(bench.pool, quick) == "seen"
            assert not write.done()
        written = await write
    assert written.outputs == {0: {"previous_status": "new", "status": "seen"}}
    assert await lead_status(bench.pool, slow) == "seen"
    assert not any(reports)  # no outage, so no alarm


async def test_a_lock_that_lasts_longer_than_its_limit_is_waited_for(
    bench: Bench, database: str
) -> None:
    state = state_of()
    await bench.journal.write(claim(bench.epoch, state, task("held")))
    reports: list[BaseException | None] = []
    async with running_journal(database, reports.append, lock_timeout=0.02) as journal:
        async with locked(bench.pool, "select 1 from tasks where task_id = 'held' for update"):
            undo = asyncio.create_task(
                journal.write(update(bench.epoch, state, CancelTask("held", "why")))
            )
            for _ in range(3):  # the limit was reached, and the write came again
                await waiters(bench.pool, 1)
                await until_async(lambda: nobody_waits(bench.pool))
            assert not undo.done()
        await undo
    assert (await bench.tasks())["held"] == "cancelled"
    assert not any(reports)


async def test_one_locked_lead_does_not_hold_up_another_that_was_locked(
    bench: Bench, database: str
) -> None:
    """Both wait apart; the first's lock may last for hours."""
    first, second = state_of("first"), state_of("second")
    await add_lead(bench.pool, first)
    await add_lead(bench.pool, second)
    async with (
        running_journal(database, lock_timeout=0.05) as journal,
        locked(bench.pool, lock_of(first)),
    ):
        async with locked(bench.pool, lock_of(second)):
            writes = await set_apart(
                journal,
                bench.epoch,
                *(claim(bench.epoch, state, SetLeadStatus("seen")) for state in (first, second)),
            )
        await asyncio.wait_for(writes[1], 10)
        assert not writes[0].done()
        assert await lead_status(bench.pool, second) == "seen"
        writes[0].cancel()


async def test_a_lock_on_a_row_of_ours_is_waited_for_by_its_write_alone(
    bench: Bench, database: str
) -> None:
    state = state_of()
    await bench.journal.write(claim(bench.epoch, state, task("held")))
    async with running_journal(database, lock_timeout=0.05) as journal:
        async with locked(bench.pool, "select 1 from tasks where task_id = 'held' for update"):
            undo = asyncio.create_task(
                journal.write(update(bench.epoch, state, CancelTask("held", "why")))
            )
            others = [journal.write(claim(bench.epoch, state_of(f"p-{n}"))) for n in range(2, 5)]
            await asyncio.wait_for(asyncio.gather(*others), 10)
            assert not undo.done()
        await undo
    assert (await bench.tasks())["held"] == "cancelled"


async def test_a_locked_saga_holds_up_its_own_write_alone(bench: Bench, database: str) -> None:
    """Somebody looks at a saga with a lock, and goes for lunch."""
    state, others = state_of("held"), [state_of(f"p-{n}") for n in range(20)]
    for each in (state, *others):
        await bench.journal.write(claim(bench.epoch, each))
    reports: list[BaseException | None] = []
    # Nobody is to wait for the lock, so there is no end to such a wait here.
    async with running_journal(
        database, reports.append, lock_timeout=60, statement_timeout=60
    ) as journal:
        async with locked(
            bench.pool, "select 1 from sagas where processing_id = 'held' for update"
        ):
            writes = [journal.write(update(bench.epoch, each)) for each in (*others, state)]
            held = asyncio.create_task(writes.pop())
            await asyncio.wait_for(asyncio.gather(*writes), 20)
            assert not held.done()
        await asyncio.wait_for(held, 20)
    assert (await bench.step(1, processing_id="held"))["status"] == "DONE"
    assert not any(reports)


async def test_a_locked_partition_holds_up_its_own_writes_alone(
    bench: Bench, database: str
) -> None:
    """With the lock timeout that is the default: one locked write after the other would wait a
    second each, and the free ones behind them."""
    busy = await bench.take_over(partition=1)
    epoch = await bench.take_over()
    async with running_journal(database) as journal:
        async with locked(
            bench.pool, "select 1 from partition_owners where partition = 1 for update"
        ):
            held = [
                asyncio.create_task(
                    journal.write(claim(busy, state_of(f"held-{n}", partition=1, offset=n)))
                )
                for n in range(60)
            ]
            for _ in range(5):
                free = [
                    journal.write(claim(epoch, state_of(f"free-{_}-{n}", offset=n)))
                    for n in range(20)
                ]
                await asyncio.wait_for(asyncio.gather(*free), 20)
            assert not any(write.done() for write in held)
        await asyncio.wait_for(asyncio.gather(*held), 20)


async def test_a_lead_that_is_free_again_is_not_held_up_by_many_that_are_not(
    bench: Bench, database: str
) -> None:
    """As after a change of many leads in one transaction, and a short one of another's."""
    slow, quick = [state_of(f"slow-{n:02d}") for n in range(60)], state_of("quick")
    for state in (*slow, quick):
        await add_lead(bench.pool, state)
    async with (
        running_journal(database) as journal,
        locked(bench.pool, "select 1 from leads where lead_id like '%slow%' for update"),
    ):
        async with locked(bench.pool, lock_of(quick)):
            writes = await set_apart(
                journal,
                bench.epoch,
                *(claim(bench.epoch, state, SetLeadStatus("seen")) for state in (*slow, quick)),
            )
            # One waits in the queue of its lock: whoever only looks may never find it free.
            await waiters(bench.pool, 1)
        await asyncio.wait_for(writes.pop(), 20)
        assert not any(write.done() for write in writes)
        for write in writes:
            write.cancel()


async def test_a_write_that_is_set_apart_stands_in_line_for_its_lock(
    bench: Bench, database: str
) -> None:
    state = state_of()
    await add_lead(bench.pool, state)
    async with running_journal(database, lock_timeout=60, statement_timeout=60) as journal:
        async with locked(bench.pool, lock_of(state)):
            (write,) = await set_apart(
                journal, bench.epoch, claim(bench.epoch, state, SetLeadStatus("seen"))
            )
            await waiters(bench.pool, 1)
        await write
    assert await lead_status(bench.pool, state) == "seen"


async def test_a_locked_lead_is_also_waited_for_by_a_restore(bench: Bench) -> None:
    state = state_of()
    await add_lead(bench.pool, state, "needs_review")
    await bench.journal.write(claim(bench.epoch, state))
    async with locked(bench.pool, lock_of(state)):
        undo = asyncio.create_task(
            bench.journal.write(
                update(bench.epoch, state, RestoreLeadStatus("needs_review", "new"))
            )
        )
        await bench.journal.write(claim(bench.epoch, state_of("other")))
        assert not undo.done()
    await undo
    assert await lead_status(bench.pool, state) == "new"


async def test_a_write_that_waits_for_a_lock_is_refused_once_its_partition_is_lost(
    bench: Bench, database: str
) -> None:
    state = state_of()
    await add_lead(bench.pool, state)
    async with (
        running_journal(database, lock_timeout=0.05) as journal,
        locked(bench.pool, lock_of(state)),
    ):
        (write,) = await set_apart(
            journal, bench.epoch, claim(bench.epoch, state, SetLeadStatus("seen"))
        )
        await bench.take_over()
        with pytest.raises(Fenced):
            await asyncio.wait_for(write, 10)
    assert await bench.journal.load("p-1") is None


async def test_a_cancelled_write_that_waited_for_a_lock_is_not_made(
    bench: Bench, database: str
) -> None:
    state, other = state_of(), state_of("p-2")
    await add_lead(bench.pool, state)
    await add_lead(bench.pool, other)
    async with running_journal(database, lock_timeout=0.05) as journal:
        async with locked(bench.pool, "select 1 from leads for update"):
            writes = await set_apart(
                journal,
                bench.epoch,
                *(claim(bench.epoch, each, SetLeadStatus("seen")) for each in (state, other)),
            )
            writes[0].cancel()
        await writes[1]
        # Once more through the same queue, so after whatever was left of the cancelled one.
        async with locked(bench.pool, "select 1 from leads for update"):
            writes = await set_apart(
                journal,
                bench.epoch,
                update(bench.epoch, other, RestoreLeadStatus("seen", "new")),
            )
        await writes[0]
    assert await bench.journal.load("p-1") is None
    assert await lead_status(bench.pool, state) == "new"


async def test_the_next_owner_waits_for_a_transaction_under_way(
    bench: Bench, database: str
) -> None:
    """Else the old owner's commit could come after the new owner has read the saga."""
    state = state_of()
    await bench.journal.write(claim(bench.epoch, state))
    async with running_journal(database, lock_timeout=20, statement_timeout=20) as journal:
        async with locked(bench.pool, "select 1 from sagas for update"):
            write = asyncio.create_task(
                journal.write(update(bench.epoch, state, status=SagaStatus.COMPLETED))
            )
            await waiters(bench.pool, 1)
            owner = asyncio.create_task(raise_epoch(bench.pool, GROUP, TOPIC, 0, "next"))
            await waiters(bench.pool, 2)
            assert not owner.done()
        await write
        assert await owner == bench.epoch + 1
    assert (await bench.saga())["status"] == "COMPLETED"


async def test_two_journals_that_lock_the_same_rows_both_go_through(
    bench: Bench, database: str
) -> None:
    """Rows are locked in the order of their ids, whatever the order of the writes."""
    states = [state_of(f"p-{n}") for n in range(10)]
    await asyncio.gather(*(bench.journal.write(claim(bench.epoch, state)) for state in states))
    async with running_journal(database) as other:
        for _ in range(5):
            await asyncio.gather(
                *(bench.journal.write(update(bench.epoch, state)) for state in states),
                *(other.write(update(bench.epoch, state)) for state in reversed(states)),
            )
    assert {(await bench.step(1, processing_id=f"p-{n}"))["status"] for n in range(10)} == {"DONE"}
    await until(lambda: bench.journal.backlog == 0)
