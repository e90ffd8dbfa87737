"""Actions that reach outside, through the journal on a real database: what fails, what is undone,
what later steps and the reply know."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from icalendar import Calendar

from streamapp.actions.topics import APOLOGIES
from streamapp.pipeline.outcomes import Reason
from streamapp.saga.ids import idempotency_key, row_id
from streamapp.saga.model import SagaStatus
from tests.actions import building
from tests.actions.outside import FULL, Outside, everything, nothing, outside
from tests.support.bench import Bench
from tests.support.sagas import OUTBOUND

CALL = ["create_calendar_event", "send_calendar_invite", "create_order"]


def key_of(action: str, sub_step: str = "", direction: Any = "forward") -> str:
    return idempotency_key("p-1", 0, action, sub_step, direction)


async def outputs(bench: Bench) -> dict[str, Any]:
    """Outputs of the forward steps, by action and sub-step."""
    rows = await bench.pool.fetch("select * from saga_steps where direction = 'forward'")
    return {
        ".".join(filter(None, (row["action"], row["sub_step"]))): orjson.loads(row["output"])
        for row in rows
        if row["output"] is not None
    }


async def replies(bench: Bench) -> list[str]:
    rows = await bench.pool.fetch("select value from outbox where topic = $1 order by id", OUTBOUND)
    return [orjson.loads(row["value"])["text"] for row in rows]


def invitations(far: Outside) -> list[tuple[str, str, Any]]:
    """To, subject and the calendar's document of each mail."""
    found = []
    for mail in far.mailbox.messages:
        (part,) = [p for p in mail.walk() if p.get_content_type() == "text/calendar"]
        document = Calendar.from_ical(part.get_content())
        assert part.get_param("method") == document["METHOD"]
        found.append((mail["To"], mail["Subject"], document))
    return found


class TestLookUps:
    async def test_the_answer_is_kept_in_the_saga(self, bench: Bench) -> None:
        async with outside() as far:
            far.answers["POST /inventory/lookups/check_inventory"] = [(200, {"in_stock": 120})]
            state = await far.run(bench, ["check_inventory", "fetch_order_details"])
        assert state.status is SagaStatus.COMPLETED
        assert (await outputs(bench))["check_inventory"] == {"in_stock": 120}
        assert far.asked[0].key == key_of("check_inventory")
        assert far.asked[0].body["product"] == "Widget X"
        assert far.asked[0].body["quantity"] == 100
        assert far.asked[1].body["order_id"] == "A-17"

    async def test_what_is_not_there_is_an_answer(self, bench: Bench) -> None:
        async with outside() as far:
            far.answers["POST /order/lookups/fetch_order_details"] = [(404, {"error": "none"})]
            await far.run(bench, ["fetch_order_details"])
        assert await outputs(bench) == {"fetch_order_details": {"found": False}}
        assert not await bench.letters()

    @pytest.mark.parametrize(
        ("answers", "times", "reason"),
        [
            ([(503, {})] * 4, 4, "status 503"),
            ([(422, {"error": "no such unit"})], 1, "no such unit"),
            ([(200, {"much": "x" * 70_000})], 1, "longer than"),
        ],
        ids=["down", "refused", "too long"],
    )
    async def test_one_that_fails_fails_alone(
        self, bench: Bench, answers: list[Any], times: int, reason: str
    ) -> None:
        async with outside() as far:
            far.answers["POST /pricing/lookups/fetch_product_pricing"] = list(answers)
            state = await far.run(
                bench, ["fetch_product_pricing", "assign_to_sales"], reply="Hello."
            )
        assert state.status is SagaStatus.COMPLETED
        assert len(far.asked) == times
        assert {request.key for request in far.asked} == {key_of("fetch_product_pricing")}
        (letter,) = await bench.letters()
        assert (letter.reason, letter.action) == (Reason.ACTION_FAILED, "fetch_product_pricing")
        assert reason in letter.message
        assert await replies(bench) == ["Hello."]
        assert list((await bench.tasks()).values()) == ["pending"]

    async def test_one_whose_answer_was_lost_is_asked_again(self, bench: Bench) -> None:
        async with outside() as far:
            far.answers["POST /calendar/lookups/validate_time_slot"] = ["cut"]
            await far.run(bench, ["validate_time_slot"])
        assert len({(request.key, str(request.body)) for request in far.asked}) == 1
        assert len(far.asked) == 2
        assert (await outputs(bench))["validate_time_slot"]["event_id"] == "e-1"


class TestCalendar:
    async def test_the_event_and_its_invitations(self, bench: Bench) -> None:
        async with outside() as far:
            await far.run(bench, CALL[:2])
            (event,) = far.asked
            found = invitations(far)
        assert event.key == key_of("create_calendar_event")
        wanted = {
            "preferred_date": "2026-12-01",
            "preferred_time": "3:30 pm",
            "starts_at": "2026-12-01T15:30:00+00:00",
            "minutes": 30,
            "purpose": "a quote",
        }
        assert {name: event.body[name] for name in wanted} == wanted
        assert (await outputs(bench))["create_calendar_event"] == {"event_id": "e-1"}
        assert [(to, subject) for to, subject, _ in found] == [
            ("customer@example.com", "Invitation: Call, 2026-12-01 15:30 UTC"),
            ("sales_team@example.org", "Invitation: Call: a quote, 2026-12-01 15:30 UTC"),
        ]
        for to, _, document in found:
            (call,) = document.walk("VEVENT")
            assert document["METHOD"] == "REQUEST"
            assert call["UID"] == row_id("event", "p-1", 0, "send_calendar_invite")
            assert call.decoded("DTSTART") == datetime(2026, 12, 1, 15, 30, tzinfo=UTC)
            assert call.decoded("DTEND") == datetime(2026, 12, 1, 16, 0, tzinfo=UTC)
            assert call["ATTENDEE"] == f"mailto:{to}"
            assert call["ORGANIZER"] == "mailto:shop@example.org"
            assert (call["SEQUENCE"], call["STATUS"]) == (0, "CONFIRMED")

    @pytest.mark.parametrize("creation", [None, "cut"], ids=["known", "in doubt"])
    async def test_both_are_taken_back_when_a_later_step_is_refused(
        self, bench: Bench, creation: str | None
    ) -> None:
        async with outside() as far:
            if creation:
                far.answers["POST /calendar/events"] = [creation]
            far.answers["POST /order/orders"] = [(422, {"error": "not sold any more"})]
            state = await far.run(bench, CALL, reply="All is arranged.")
            found = invitations(far)
        assert state.status is SagaStatus.COMPENSATED
        deletion = far.asked[-1]
        assert deletion.what == f"DELETE /calendar/events/{key_of('create_calendar_event')}"
        assert deletion.key == key_of("create_calendar_event", direction="compensate")
        assert [(to, document["METHOD"]) for to, _, document in found] == [
            ("customer@example.com", "REQUEST"),
            ("sales_team@example.org", "REQUEST"),
            ("sales_team@example.org", "CANCEL"),
            ("customer@example.com", "CANCEL"),
        ]
        calls = [call for _, _, document in found for call in document.walk("VEVENT")]
        assert len({str(call["UID"]) for call in calls}) == 1
        assert [call["SEQUENCE"] for call in calls] == [0, 0, 1, 1]
        assert {call["STATUS"] for call in calls[2:]} == {"CANCELLED"}
        assert len({mail["Message-ID"] for mail in far.mailbox.messages}) == 4
        assert await replies(bench) == [APOLOGIES["en"]]
        assert set((await bench.tasks()).values()) == {"cancelled"}

    async def test_an_event_that_never_was_is_nothing_to_undo(self, bench: Bench) -> None:
        async with outside() as far:
            far.answers["POST /calendar/events"] = [(500, {})] * 4
            deletion = f"DELETE /calendar/events/{key_of('create_calendar_event')}"
            far.answers[deletion] = [(404, {})] * 20
            executor = far.registry.executor("calendar_event", 1)
            assert executor is not None
            executor.max_call_time = 0.5  # type: ignore[union-attr]
            state = await far.run(bench, CALL[:1])
        assert state.status is SagaStatus.COMPENSATED
        assert far.names()[-1] == deletion

    @pytest.mark.parametrize("doubt", [False, True])
    async def test_an_invitation_that_cannot_reach_anybody_is_not_withdrawn_for_ever(
        self, bench: Bench, doubt: bool
    ) -> None:
        async with outside() as far:
            executor = far.registry.executor("invite", 1)
            assert executor is not None
            executor.max_call_time = 0.2  # type: ignore[union-attr]
            state = far.state(CALL[:2], reply="Arranged.")
            far.mailbox.replies["DATA"] = "299 what?" if doubt else "550 no such user"
            far.mailbox.later["DATA"] = "550 no such user"
            await bench.deliver(state, bench.executor(registry=far.registry))
        assert state.status is SagaStatus.COMPENSATED
        assert far.names()[-1].startswith("DELETE /calendar/events/")
        steps = await bench.pool.fetch(
            "select direction, status, in_doubt from saga_steps where sub_step = 'customer' "
            "order by direction"
        )
        forward = ("forward", "FAILED", doubt)
        wanted = [("compensate", "DONE", False), forward] if doubt else [forward]
        assert [tuple(row) for row in steps] == wanted

    async def test_a_refused_event_takes_the_saga_back(self, bench: Bench) -> None:
        async with outside() as far:
            far.answers["POST /calendar/events"] = [(422, {"error": "not free"})]
            state = await far.run(bench, ["assign_to_sales", *CALL[:2]], reply="Arranged.")
        assert state.status is SagaStatus.COMPENSATED
        assert far.names() == ["POST /calendar/events"]
        assert not far.mailbox.envelopes
        (letter,) = await bench.letters()
        assert letter.reason is Reason.STEP_REJECTED
        assert await replies(bench) == [APOLOGIES["en"]]

    @pytest.mark.parametrize(
        "entities",
        [
            FULL | {"preferred_time": "in the afternoon"},
            FULL | {"preferred_date": None},
            FULL | {"preferred_date": "tomorrow"},
        ],
    )
    async def test_a_time_that_cannot_be_read_is_for_people(
        self, bench: Bench, entities: dict[str, Any]
    ) -> None:
        async with outside() as far:
            about = building.message(entities=entities)
            await far.run(bench, CALL[:2], about=about)
        assert far.asked[0].body["starts_at"] is None
        assert not far.mailbox.envelopes
        assert await bench.pool.fetchval("select task_type from tasks") == "send_calendar_invite"

    async def test_the_time_is_meant_where_the_business_is(self, bench: Bench) -> None:
        def there(url: str, port: int) -> dict[str, str]:
            return everything(url, port) | {"STREAMAPP_TIMEZONE": "Asia/Kolkata"}

        async with outside(there) as far:
            await far.run(bench, CALL[:1])
        assert far.asked[0].body["starts_at"] == "2026-12-01T10:00:00+00:00"


class TestNotifications:
    async def test_a_failing_slack_repeats_neither_task_nor_mail(self, bench: Bench) -> None:
        async with outside() as far:
            far.answers["POST /slack/agent"] = [(503, {}), "cut"]
            state = await far.run(bench, ["notify_agent"])
        assert state.status is SagaStatus.COMPLETED
        assert far.names() == ["POST /slack/agent"] * 3
        assert len({str(request.body) for request in far.asked}) == 1
        assert len(far.mailbox.envelopes) == 1
        assert len(await bench.tasks()) == 1

    async def test_slack_refusing_fails_it_alone(self, bench: Bench) -> None:
        async with outside() as far:
            far.answers["POST /slack/agent"] = [(404, {})]
            state = await far.run(bench, ["notify_agent"], reply="Hello.")
        assert state.status is SagaStatus.COMPLETED
        (letter,) = await bench.letters()
        assert (letter.reason, letter.action) == (Reason.ACTION_FAILED, "notify_agent")
        assert await replies(bench) == ["Hello."]
        rows = await bench.pool.fetch("select * from saga_steps")
        assert all("/slack/agent" not in str(dict(row)) for row in rows), "its address is a secret"

    async def test_being_told_to_wait_spends_no_attempt(self, bench: Bench) -> None:
        async with outside() as far:
            far.headers = {"Retry-After": "1"}
            far.answers["POST /slack/agent"] = [(429, {})]
            state = await far.run(bench, ["notify_agent"], max_wait_best_effort=20.0)
        assert state.status is SagaStatus.COMPLETED
        assert not await bench.letters()
        row = await bench.pool.fetchrow("select * from saga_steps where sub_step = 'slack'")
        assert row is not None
        assert (row["status"], row["attempts"], row["in_doubt"]) == ("DONE", 1, False)
        assert row["circuit_wait"] >= 1.0

    async def test_being_told_to_wait_too_long_fails_it(self, bench: Bench) -> None:
        async with outside() as far:
            far.headers = {"Retry-After": "3600"}
            far.answers["POST /slack/agent"] = [(429, {})]
            state = await far.run(bench, ["notify_agent"], max_wait_best_effort=0.2)
        assert state.status is SagaStatus.COMPLETED
        assert far.names() == ["POST /slack/agent"]
        (letter,) = await bench.letters()
        assert letter.action == "notify_agent"


class TestReply:
    async def test_contents_follow_it_in_the_order_of_the_plan(self, bench: Bench) -> None:
        async with outside() as far:
            state = await far.run(
                bench, ["send_return_policy", "log_inquiry", "send_faq"], reply="Thank you."
            )
        wanted = "Thank you.\n\ntext of return_policy\n\ntext of faq"
        assert await replies(bench) == [wanted]
        assert state.plan.reply == wanted

    async def test_a_text_edited_meanwhile_changes_nothing_of_a_saga_under_way(
        self, bench: Bench
    ) -> None:
        async with outside() as far:
            state = far.state(["send_faq"])
            far.settings = far.settings.model_copy(update={"texts": {"faq": "another"}})
            await bench.deliver(state, bench.executor(registry=far.registry))
        assert await replies(bench) == ["text of faq"]


class TestPriority:
    async def test_priority_reaches_tasks_made_before_and_after_it(self, bench: Bench) -> None:
        async with outside(nothing) as far:
            about = replace(building.message(entities=FULL), intent="COMPLAINT")
            await far.run(
                bench,
                ["check_inventory", "assign_to_sales", "priority_critical", "notify_sales"],
                about=about,
            )
        rows = await bench.pool.fetch(
            "select task_type, priority, due_date - created_at as due from tasks"
        )
        assert len(rows) == 3
        for row in rows:
            assert row["priority"] == "critical"
            assert row["due"].total_seconds() <= 3600
