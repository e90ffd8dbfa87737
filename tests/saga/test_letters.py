"""From a saga's commit through the outbox into the table: each letter once, in whatever order."""

from __future__ import annotations

from itertools import permutations

import pytest

from streamapp.pipeline.dead_letter import parse_headers
from streamapp.pipeline.outcomes import Record
from streamapp.services.errors import Rejected
from streamapp.storage.batch import headers_from_json
from streamapp.storage.dead_letters import DeadLetterStore
from tests.support.bench import Bench
from tests.support.sagas import DLQ, external, mail, own, saga

NO = Rejected("no")


async def relayed(bench: Bench) -> list[Record]:
    """The letters as they come out of the dead-letter topic."""
    rows = await bench.pool.fetch("select * from outbox where topic = $1 order by id", DLQ)
    return [
        Record(DLQ, 0, n, 0, row["key"], row["value"], headers_from_json(row["headers"]))
        for n, row in enumerate(rows)
    ]


async def rows(bench: Bench) -> dict[str, tuple[str, str]]:
    found = await bench.pool.fetch("select action, reason, status from dead_letter_queue")
    assert len({row["action"] for row in found}) == len(found)
    return {row["action"]: (row["reason"], row["status"]) for row in found}


@pytest.mark.parametrize("order", list(permutations(range(3))))
async def test_letters_of_one_record_have_a_row_each(bench: Bench, order: tuple[int, ...]) -> None:
    """Two of its actions failed, then the record itself. None takes another one's place, and
    none that comes again, in whatever order, lowers what people have done about it since."""
    for action in "abc":
        bench.service.plan(action, NO)
    await bench.deliver(saga(mail("a"), mail("b"), external("c"), own("d")))
    letters = await relayed(bench)
    assert len(letters) == 3
    store = DeadLetterStore(bench.pool)
    for n in order:
        assert await store.store(letters[n], parse_headers(letters[n].headers))
    expected = {
        "a": ("action_failed", "failed"),
        "b": ("action_failed", "failed"),
        "": ("step_rejected", "failed"),
    }
    assert await rows(bench) == expected
    await bench.pool.execute("update dead_letter_queue set status = 'resolved' where action = ''")
    for letter in letters * 2:
        assert not await store.store(letter, parse_headers(letter.headers))
    assert await rows(bench) == {**expected, "": ("step_rejected", "resolved")}
