"""Content that cannot be stored fails the step that it belongs to, and no other."""

from __future__ import annotations

from typing import Any

import pytest

from streamapp.saga.model import Step, WriteRefused
from streamapp.services.errors import Rejected, Retryable
from tests.support.bench import Bench
from tests.support.sagas import external, mail, own, saga, task_id

NUL = "a\0b"


async def test_a_required_step_takes_its_saga_back(bench: Bench) -> None:
    state = saga(own("a"), external("b"), own("c"), own("d", refused=True), own("e"))
    await bench.deliver(state)
    assert state.status == "COMPENSATED"
    assert await bench.tasks() == {task_id("p-1", name): "cancelled" for name in "ac"}
    assert bench.service.effects == set()
    (letter,) = await bench.letters()
    assert letter.reason == "handler_error"
    assert "22P05" in letter.message
    assert (await bench.saga())["error"].startswith("d: ")


async def test_a_best_effort_step_fails_alone(bench: Bench) -> None:
    state = saga(own("a"), own("b", required=False, refused=True), own("c", reply=True))
    await bench.deliver(state)
    assert state.status == "COMPLETED"
    assert await bench.tasks() == {task_id("p-1", name): "pending" for name in "ac"}
    (letter,) = await bench.letters()
    assert (letter.reason, letter.action) == ("action_failed", "b")
    assert await bench.pool.fetchval("select count(*) from outbox where topic <> $1", "x") == 2


async def test_what_was_done_before_it_stays_done(bench: Bench) -> None:
    """The answer of ``a`` shares its commit with ``b``, which is refused."""
    bench.service.plan("a", {"answer": 1}, {"answer": 2})
    state = saga(external("a"), own("b", required=False, refused=True), external("c"))
    await bench.deliver(state)
    assert state.status == "COMPLETED"
    assert await bench.steps() == {
        ("a", "forward"): "DONE",
        ("b", "forward"): "FAILED",
        ("c", "forward"): "DONE",
    }
    assert len({call.key for call in bench.service.calls if call.action == "a"}) == 1


async def test_several_refused_steps_have_a_letter_each(bench: Bench) -> None:
    state = saga(*(own(name, required=False, refused=True) for name in "abc"), own("d"))
    await bench.deliver(state)
    assert state.status == "COMPLETED"
    assert [letter.action for letter in await bench.letters()] == ["a", "b", "c"]
    assert await bench.tasks() == {task_id("p-1", "d"): "pending"}
    assert [(await bench.step(n))["status"] for n in range(4)] == ["FAILED"] * 3 + ["DONE"]


@pytest.mark.parametrize("output", [{"text": NUL}, {"text": "\ud800"}, {"object": object()}])
@pytest.mark.parametrize("following", [[], [own("c")], [external("c")]])
async def test_an_answer_that_cannot_be_stored_fails_its_step_in_doubt(
    bench: Bench, output: dict[str, Any], following: list[Step]
) -> None:
    bench.service.plan("b", output, output)
    state = saga(own("a"), external("b"), *following)
    await bench.deliver(state)
    assert state.status == "COMPENSATED"
    assert bench.service.effects == set()
    assert bench.service.names()[-1] == "-b"
    row = await bench.step(1)
    assert (row["status"], row["in_doubt"], row["output"]) == ("FAILED", True, None)
    assert [letter.reason for letter in await bench.letters()] == ["handler_error"]


async def test_a_first_answer_after_another_was_refused_is_in_doubt_too(bench: Bench) -> None:
    """By then the steps are stored one by one, and nothing else has put this one in doubt."""
    bench.service.plan("a", {"text": NUL}, {"text": NUL})
    bench.service.plan("b", {"text": NUL})
    state = saga(external("a", required=False), external("b"))
    await bench.deliver(state)
    assert state.status == "COMPENSATED"
    assert bench.service.names() == ["a", "a", "b", "-b", "-a"]
    assert bench.service.effects == set()


async def test_a_best_effort_answer_that_cannot_be_stored_is_a_failed_action(
    bench: Bench,
) -> None:
    bench.service.plan("a", {"text": NUL}, {"text": NUL})
    state = saga(mail("a"), own("b"))
    await bench.deliver(state)
    assert state.status == "COMPLETED"
    assert [letter.action for letter in await bench.letters()] == ["a"]


@pytest.mark.parametrize("text", [NUL, "\ud800 and more", "x" * 100_000])
@pytest.mark.parametrize(
    "error",
    [Rejected, lambda text: Retryable(text, in_doubt=True), ValueError],
    ids=["rejected", "retryable", "defect"],
)
async def test_an_error_is_stored_whatever_its_text(bench: Bench, error: Any, text: str) -> None:
    bench.service.plan("a", *(error(text) for _ in range(4)))
    state = saga(own("z"), external("a"))
    await bench.deliver(state)
    assert state.status == "COMPENSATED"
    assert len((await bench.step(1))["error"]) <= 2000
    assert len((await bench.saga())["error"]) <= 2100
    attempts = 1 if error is Rejected else 4
    assert (await bench.step(1))["attempts"] == attempts
    assert len(bench.service.calls) == attempts + (attempts > 1)  # in doubt, so it is undone


async def test_a_compensation_that_cannot_be_stored_gets_stuck(bench: Bench) -> None:
    bench.service.plan("c", Rejected("no"))
    state = saga(own("a", undo_refused=True), own("b"), external("c"))
    await bench.deliver(state)
    assert state.status == "STUCK"
    # What could be undone before it is undone, once.
    assert await bench.tasks() == {task_id("p-1", "a"): "pending", task_id("p-1", "b"): "cancelled"}
    assert await bench.steps() == {
        ("a", "forward"): "DONE",
        ("b", "forward"): "DONE",
        ("c", "forward"): "FAILED",
        ("b", "compensate"): "DONE",
        ("a", "compensate"): "FAILED",
    }
    assert [letter.reason for letter in await bench.letters()] == ["compensation_stuck"]
    # Tried again it fails the same way, and stays STUCK.
    again = await bench.load()
    await bench.executor().resume(again, bench.epoch, bench.place)
    assert again.status == "STUCK"
    assert again.stuck_retries == 1


async def test_an_undoing_answer_that_cannot_be_stored_gets_stuck(bench: Bench) -> None:
    bench.service.plan("a", {"text": NUL}, {"text": NUL}, undo=True)
    bench.service.plan("b", Rejected("no"))
    state = saga(external("a"), external("b"))
    await bench.deliver(state)
    assert state.status == "STUCK"
    again = await bench.load()
    await bench.executor().resume(again, bench.epoch, bench.place)
    assert again.status == "COMPENSATED"


async def test_a_step_that_cannot_even_be_started_parks_its_saga(bench: Bench) -> None:
    """It is no end to be undone: another version of the code may do better."""
    state = saga(own("a"), external("b"), external("c", request_refused=True))
    await bench.deliver(state)
    assert state.status == "STUCK"
    row = await bench.saga()
    assert (row["status"], row["reason"]) == ("STUCK", "handler_error")
    assert row["resume_at"] is not None
    assert await bench.tasks() == {task_id("p-1", "a"): "pending"}
    assert [letter.reason for letter in await bench.letters()] == ["handler_error"]
    assert bench.service.names()[-1] == "b"
    assert ("c", "forward") not in await bench.steps()


async def test_a_refusal_does_not_quote_what_the_customer_wrote(bench: Bench) -> None:
    state = saga(own("a", priority="my phone is 12345"))
    await bench.deliver(state)
    assert state.status == "COMPENSATED"
    texts = [(await bench.saga())["error"], (await bench.letters())[0].message]
    assert all("23514" in text and "12345" not in text for text in texts)


async def test_a_claim_that_cannot_be_stored_is_reported(bench: Bench) -> None:
    with pytest.raises(WriteRefused):
        await bench.deliver(saga(own("a"), external("b"), lead_id=NUL))
    assert await bench.journal.load("p-1") is None
    assert bench.service.calls == []
    assert bench.observer.events == []
