"""Content that the database refuses fails alone: its neighbours in the batch are written."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from streamapp.saga.model import SagaStatus, SagaWrite, WriteRefused
from streamapp.saga.operations import InsertActivity, Operation
from tests.storage.writes import claim, counts, row, state_of, task
from tests.support.bench import Bench

INCOMPRESSIBLE = "".join(chr(0x4E00 + (n * 7919) % 20000) for n in range(4000))


def with_output(output: dict[str, Any]) -> SagaWrite:
    write = claim(0, state_of("bad"))
    write.steps, write.operations = [row(0, output=output)], []
    return write


def with_operation(operation: Operation) -> SagaWrite:
    return claim(0, state_of("bad"), operation)


REFUSED = {
    "a NUL in a text": with_operation(task("t", description="a\0b")),
    "a NUL in a JSON text": with_operation(task("t", metadata={"a": "\0"})),
    "a lone surrogate": with_operation(task("t", description="\ud800")),
    "a lone surrogate in JSON": with_output({"a": "\ud800"}),
    "a value that the column does not allow": with_operation(task("t", priority="urgent")),
    "a text where a number belongs": with_operation(task("t", due_in="soon")),
    "a missing value": with_operation(InsertActivity(None, "type", "")),  # type: ignore[arg-type]
    "a date beyond the calendar": with_operation(task("t", due_in=1e300)),
    "a key too long for an index": with_operation(task(INCOMPRESSIBLE)),
    "an output that is no JSON": with_output({"a": object()}),
    "an output with a key that is no text": with_output({("a",): 1}),  # type: ignore[dict-item]
}


@pytest.mark.parametrize("name", REFUSED)
async def test_a_refused_write_fails_alone(bench: Bench, name: str) -> None:
    good = [claim(bench.epoch, state_of(f"p-{n}")) for n in range(6)]
    bad = REFUSED[name]
    bad.epoch = bench.epoch
    results = await asyncio.gather(
        *(bench.journal.write(write) for write in (*good[:3], bad, *good[3:])),
        return_exceptions=True,
    )
    kinds = [type(result).__name__ for result in results]
    assert kinds == ["Written"] * 3 + ["WriteRefused"] + ["Written"] * 3
    assert set((await counts(bench.pool)).values()) == {6}
    assert "task of p-5" in await bench.tasks()


async def test_a_refusal_names_its_sqlstate(bench: Bench) -> None:
    with pytest.raises(WriteRefused, match="SQLSTATE 23514"):
        await bench.journal.write(claim(bench.epoch, state_of(), task("t", priority="urgent")))


async def test_several_refused_writes_all_fail(bench: Bench) -> None:
    writes = [
        claim(bench.epoch, state_of(f"p-{n}"), task(f"t{n}", "\0" if n % 3 == 0 else "fine"))
        for n in range(10)
    ]
    results = await asyncio.gather(
        *(bench.journal.write(write) for write in writes), return_exceptions=True
    )
    refused = [n for n, result in enumerate(results) if isinstance(result, WriteRefused)]
    assert refused == [0, 3, 6, 9]
    assert set(await bench.tasks()) == {f"t{n}" for n in range(10) if n % 3}


async def test_the_journal_goes_on_after_a_refusal(bench: Bench) -> None:
    with pytest.raises(WriteRefused):
        await bench.journal.write(claim(bench.epoch, state_of(), task("t", "\0")))
    await bench.journal.write(claim(bench.epoch, state_of(), status=SagaStatus.COMPLETED))
    assert (await bench.saga())["status"] == "COMPLETED"
