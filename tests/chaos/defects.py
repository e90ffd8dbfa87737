"""Defects that a worker could have, each to be found by the auditor.

Each function breaks one promise in the process that calls it, by putting other behaviour in the
place of the product's. Nothing in the product knows of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import count
from typing import Any
from uuid import uuid4

from streamapp.pipeline.orchestrator import Delivered, Pipeline, _delivered
from streamapp.pipeline.outcomes import Record
from streamapp.saga import running
from streamapp.saga.attempts import Attempts
from streamapp.saga.model import SagaState, SagaStatus
from streamapp.saga.parking import Parking
from streamapp.storage import rows
from streamapp.storage.connection import connect
from streamapp.worker.lanes import Job, Lanes
from streamapp.worker.ledger import Ledger
from streamapp.worker.producer import DeadLetterProducer

FEW = 7  # one in so many is hit, where not all are

_RUN_AGAIN = """
update sagas set run = run + 1, status = 'RUNNING', finished_at = null where processing_id = $1
"""


def _put(owner: Any, name: str, function: Callable[..., Any]) -> Any:
    """Replace ``owner.name``; gives what was there."""
    original = getattr(owner, name)
    setattr(owner, name, function)
    return original


def acknowledges_early() -> None:
    """An offset is committed as soon as its record is taken in, before the saga's commit."""
    finish = _put(Ledger, "finish", lambda ledger, offset: None)

    def take(ledger: Ledger, offset: int) -> None:
        add(ledger, offset)
        finish(ledger, offset)

    add = _put(Ledger, "add", take)


def skips_compensation() -> None:
    """A saga calls itself COMPENSATED and has undone nothing."""
    _put(running, "may_have_effect", lambda row: False)


def compensates_only_what_is_done() -> None:
    """A step in doubt counts as one that had no effect, and is not undone."""
    _put(running, "may_have_effect", lambda row: row is not None and row.status == "DONE")


def asks_under_a_new_key() -> None:
    """Every attempt of a step has an idempotency key of its own."""

    async def begin(attempts: Attempts) -> None:
        attempts._key = str(uuid4())
        await start(attempts)

    start = _put(Attempts, "_start", begin)


def runs_repetitions_again() -> None:
    """A repetition of a finished message starts one more run of its saga."""

    async def run_again(
        pipeline: Pipeline,
        record: Record,
        new: SagaState,
        saga: SagaState,
        epoch: int,
        parking: Parking,
    ) -> Delivered:
        finished = saga.status in (SagaStatus.COMPLETED, SagaStatus.COMPENSATED)
        if not finished or saga.payload_hash != new.payload_hash:
            delivered: Delivered = await found(pipeline, record, new, saga, epoch, parking)
            return delivered
        journal: Any = pipeline._sagas.journal
        connection = await connect(journal._settings, "defect")
        try:
            await connection.execute(_RUN_AGAIN, saga.message.processing_id)
        finally:
            await connection.close()
        saga.run, saga.status, saga.steps = saga.run + 1, SagaStatus.RUNNING, {}
        await pipeline._sagas.run(saga, epoch, parking, claim=False)
        return _delivered(saga)

    found = _put(Pipeline, "_found", run_again)
    _put(Pipeline, "_known", lambda pipeline, partition, processing_id: None)


def forgets_the_order() -> None:
    """Messages of a lead do not wait for each other."""
    turns = count()

    def submit_alone(lanes: Lanes, key: Any, job: Job, size: int) -> None:
        lease, lead = key
        submit(lanes, (lease, lead, next(turns)), job, size)

    submit = _put(Lanes, "submit", submit_alone)


def drops_dead_letters() -> None:
    """A bad record is acknowledged, and now and then its dead letter is not sent."""
    turns = count(1)

    async def publish_most(producer: DeadLetterProducer, record: Record) -> None:
        if next(turns) % FEW:
            await publish(producer, record)

    publish = _put(DeadLetterProducer, "publish", publish_most)


def alters_dead_letters() -> None:
    """A dead letter has not the bytes of its record."""

    async def publish_stripped(producer: DeadLetterProducer, record: Record) -> None:
        await publish(producer, replace(record, value=(record.value or b"").strip() + b"\n"))

    publish = _put(DeadLetterProducer, "publish", publish_stripped)


def drops_outbox_rows() -> None:
    """Now and then a saga's outbox rows are missing from its commit."""
    turns = count(1)

    def most_rows(writes: Any) -> Any:
        return every([write for write in writes if not write.outbox or next(turns) % FEW])

    every = _put(rows, "outbox_rows", most_rows)


DEFECTS: dict[str, Callable[[], None]] = {
    function.__name__.replace("_", "-"): function
    for function in (
        acknowledges_early,
        skips_compensation,
        compensates_only_what_is_done,
        asks_under_a_new_key,
        runs_repetitions_again,
        forgets_the_order,
        drops_dead_letters,
        alters_dead_letters,
        drops_outbox_rows,
    )
}
