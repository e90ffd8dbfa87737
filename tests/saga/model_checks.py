"""What holds in the model's world, whatever happened to workers, commits and services in it."""

from __future__ import annotations

from typing import Any

from streamapp.pipeline.dead_letter import parse_headers
from streamapp.saga.ids import idempotency_key
from streamapp.saga.model import SagaState
from streamapp.storage.batch import headers_from_json
from streamapp.storage.sagas import load_sagas
from tests.saga.model import MAX_ATTEMPTS, Sent, undisturbed
from tests.support.bench import Bench
from tests.support.sagas import DLQ, OUTBOUND, Call, task_id


class Checks:
    """Looks at the database and the service for the messages of a log."""

    def __init__(self, bench: Bench, log: list[Sent]) -> None:
        self.pool, self.service, self.log = bench.pool, bench.service, log
        self._ends: dict[str, Any] = {}

    def of(self, call: Call) -> Sent:
        return next(message for message in self.log if message.name == call.processing_id)

    def calls_of(self, message: Sent) -> list[Call]:
        return [call for call in self.service.calls if self.of(call) is message]

    def goes_on(self, message: Sent) -> None:
        """Its end was none: it is resumed."""
        self._ends.pop(message.name, None)

    async def everything(self, *of: Sent) -> dict[str, list[Any]]:
        """All that the database holds of these messages, or of all: rows by table."""
        names = [message.name for message in of or self.log]
        tables = {
            "sagas": "processing_id",
            "saga_steps": "processing_id",
            "tasks": "processing_id",
            "processed_messages": "message_id",
        }
        found = {
            table: await self.pool.fetch(
                f"select *, {key} as name from {table} where {key} = any($1) order by 1, 2, 3, 4",
                names,
            )
            for table, key in tables.items()
        }
        rows = await self.pool.fetch(
            "select * from outbox where lead_id = any($1) order by id",
            [message.lead for message in of or self.log],
        )
        found["outbox"] = [row for row in rows if about(row)[0] in names]
        return found

    async def check(self) -> None:
        found = await self.everything()
        async with self.pool.acquire() as connection:
            names = [message.name for message in self.log]
            states = await load_sagas(connection, names)
        for message in self.log:
            self.check_calls(message)
            if message.status is None:
                continue
            rows = {
                table: [row for row in rows if (row.get("name") or about(row)[0]) == message.name]
                for table, rows in found.items()
            }
            assert self._ends.setdefault(message.name, rows) == rows, "an end is an end"
            self.check_end(message, states[message.name], rows)
            if not message.disturbed:
                names = [name(call) for call in self.calls_of(message)]
                assert (message.status, names) == undisturbed(message)
        for lead in {message.lead for message in self.log}:
            await self.check_lead(lead, found)

    def check_end(self, message: Sent, state: SagaState, rows: dict[str, list[Any]]) -> None:
        assert state.status == message.status
        forward = {n: row.status for (n, way), row in state.steps.items() if way == "forward"}
        actions = [step.action for step in message.steps]
        done = {action for n, action in enumerate(actions) if forward.get(n) == "DONE"}
        failed = {action for n, action in enumerate(actions) if forward.get(n) == "FAILED"}
        required = {step.action for step in message.steps if step.kind.required}
        keys = {
            idempotency_key(message.name, 0, step.action, "", "forward"): step
            for step in message.steps
        }
        in_effect = {keys[key].action for key in self.service.effects & keys.keys()}
        own_done = {step.action for step in message.steps if step.own} & done
        tasks = {row["task_id"]: row["status"] for row in rows["tasks"]}
        assert tasks.keys() == {task_id(message.name, action) for action in own_done}
        left = {action for action in own_done if tasks[task_id(message.name, action)] == "pending"}
        letters = sorted(about(row)[1] for row in rows["outbox"] if row["topic"] == DLQ)
        replies = len([row for row in rows["outbox"] if row["topic"] == OUTBOUND])
        assert replies == any("reply" in s.kind.params for s in message.steps if s.action in done)
        (processed,) = rows["processed_messages"]
        completed = message.status == "COMPLETED"
        assert processed["processing_status"] == ("success" if completed else "failed")
        if completed:
            assert required <= done
            assert done | failed == set(actions)
            assert done - own_done <= in_effect
            assert left == own_done
            assert letters == sorted(failed)
            return
        assert len(failed & required) == 1
        assert letters == sorted(["", *(failed - required)])
        if message.status == "COMPENSATED":
            mails = {step.action for step in message.steps if step.kind.executor == "mail"}
            assert in_effect <= mails
            assert left == set()

    def check_calls(self, message: Sent) -> None:
        """One key and one request for each effect, in the order of the plan, and nothing forward
        after the first undoing."""
        calls = self.calls_of(message)
        for direction in ("forward", "compensate"):
            seen: dict[int, tuple[str, bytes]] = {}
            these = [call for call in calls if call.direction == direction]
            ordinals = [call.ordinal for call in these]
            assert ordinals == sorted(ordinals, reverse=direction == "compensate")
            for call in these:
                request = (call.key, call.request)
                assert seen.setdefault(call.ordinal, request) == request
                assert 1 <= call.attempt <= MAX_ATTEMPTS
        directions = [call.direction for call in calls]
        assert directions == sorted(directions, reverse=True)

    async def check_lead(self, lead: str, found: dict[str, list[Any]]) -> None:
        """What is done for a lead is done in the order of the log."""
        messages = {m.name: m for m in self.log if m.lead == lead}
        claims = sorted(
            (row for row in found["sagas"] if row["name"] in messages),
            key=lambda row: row["created_at"],
        )
        for order in (
            [row["name"] for row in claims],
            [
                call.processing_id
                for call in self.service.calls
                if call.direction == "forward" and call.processing_id in messages
            ],
            [about(row)[0] for row in found["outbox"] if about(row)[0] in messages],
        ):
            offsets = [messages[each].offset for each in order]
            assert offsets == sorted(offsets)
        if any(m.status in (None, "STUCK") or m.resumed for m in messages.values()):
            return
        expected = "new"
        for message in messages.values():
            for step in message.steps:
                if message.status == "COMPLETED" and "lead_status" in step.kind.params:
                    expected = step.action
        status = await self.pool.fetchval("select status from leads where lead_id = $1", lead)
        assert status == expected


def name(call: Call) -> str:
    return ("-" if call.direction == "compensate" else "") + call.action


def about(row: Any) -> tuple[str, str]:
    """The message and the action that an outbox row is about."""
    if row["topic"] == OUTBOUND:
        return row["record_id"].removeprefix("reply-"), ""
    letter = parse_headers(headers_from_json(row["headers"]))
    assert letter is not None
    assert letter.processing_id is not None
    return letter.processing_id, letter.action
