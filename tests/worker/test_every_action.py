"""Every one of the sixty actions, through a whole worker: a few hundred messages whose plans name
them all, with every service configured, and with none. What has to be there afterwards is written
down without the product's code: plans in ``tests.intents.model``, effects in
``tests.actions.test_sixty``."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest

from streamapp.saga.ids import row_id
from tests.actions.outside import FULL, Outside, everything, nothing, outside
from tests.actions.test_sixty import with_services, without
from tests.intents.model import GENERAL, Expected, Given, expected
from tests.kafka.job import read_all, send, wait_until_done
from tests.worker.conftest import Stage

WITHIN = 90.0  # seconds; Slack takes one message a second for each channel
CUSTOMERS = "customers.example.org"
INVITE = "send_calendar_invite"
_MESSAGE = re.compile(r"^Message: (\S+)\r?$", re.MULTILINE)
_RANK = {"low": 0, "normal": 1, "high": 2, "critical": 3}


@dataclass(frozen=True)
class Sent:
    """A message, and the plan that the tables give it."""

    id: str
    given: Given
    plan: Expected

    @property
    def lead(self) -> str:
        return f"lead-of-{self.id}"

    @property
    def record(self) -> tuple[bytes, bytes]:
        value = {
            "processing_id": self.id,
            "lead_id": self.lead,
            "business_id": "b-1",
            "tenant_id": "t-1",
            "intent": {"intent": self.given.intent, "confidence": self.given.confidence},
            "entities": self.given.entities,
            "original_message": self.given.text,
            "reply_to": "491512345678",
        }
        return self.lead.encode(), json.dumps(value).encode()


def inputs() -> Iterator[tuple[str, float, dict[str, Any], str]]:
    """Intent, confidence, entities that differ from the full ones (None: absent), text.

    Those that tell a team are few, as a channel of Slack takes one message a second.
    """
    for category in GENERAL:
        for confidence in (0.95, 0.8, 0.9, 1.0, 0.81, 0.8) * 2:
            yield "GENERAL_INQUIRY", confidence, {"category": category}, ""
        for keyword in GENERAL[category][0]:
            yield "GENERAL_INQUIRY", 0.9, {"category": None}, f"About {keyword}, please"
    yield "GENERAL_INQUIRY", 0.9, {"category": None}, "I need it today"
    yield "GENERAL_INQUIRY", 0.7, {"category": None, "urgency": "asap"}, ""
    for confidence in (0.95, 0.8, 0.6):
        for entities in ({}, {"product": None}, {"product": None, "category": None}):
            yield "PRICING_INQUIRY", confidence, entities | {"volume": 100}, ""
        yield "PRICING_INQUIRY", confidence, {"volume": 101}, ""
        for absent in ("date", "location", "quantity"):
            yield "AVAILABILITY_INQUIRY", confidence, {absent: None}, ""
        yield "AVAILABILITY_INQUIRY", confidence, {}, ""
        yield "AVAILABILITY_INQUIRY", confidence, {"product": None}, ""
        yield "SCHEDULE_CALL", confidence, {}, ""
        yield "SCHEDULE_CALL", confidence, {"urgency": "urgent"}, ""
        yield "SCHEDULE_CALL", confidence, {"preferred_date": None, "preferred_time": None}, ""
        yield "ORDER_REQUEST", confidence, {}, ""
        yield "ORDER_REQUEST", confidence, {"urgency": "immediate"}, ""
        yield "COMPLAINT", confidence, {"order_id": None}, "it is broken"
        yield "COMPLAINT", confidence, {}, "answer me immediately"
        yield "NOBODYS", confidence, {}, ""
    yield "UNKNOWN", 0.9, {}, "an emergency"
    yield "ORDER_REQUEST", 0.49, {}, ""


def messages() -> list[Sent]:
    found = []
    for number, (intent, confidence, changes, text) in enumerate(inputs()):
        identity = f"m-{number}"
        entities = FULL | {"email": f"{identity}@{CUSTOMERS}"} | changes
        given = Given(intent, confidence, entities, text)
        found.append(Sent(identity, given, expected(given)))
    return found


def wanted(sent: Sent, table: dict[str, set[str]]) -> Counter[str]:
    """The effects of one message, each as often as it has to be there."""
    found: Counter[str] = Counter()
    for action in sent.plan.actions:
        if not action.startswith("priority_"):
            found.update(table[action])
    # The one text that a saga sends holds those of all its actions, in their order.
    texts = [effect for effect in found if effect.startswith("reply: ")]
    for text in texts:
        del found[text]
    found["texts: " + ", ".join(text.removeprefix("reply: ") for text in texts)] = 1
    customer = f"invite to {FULL['email']}"
    if found.pop(customer, 0):
        found[f"invite to {sent.id}@{CUSTOMERS}"] = 1
    return found


class Found:
    """What is there afterwards, by message."""

    def __init__(self, sent: list[Sent]) -> None:
        self.effects: dict[str, Counter[str]] = {each.id: Counter() for each in sent}
        self.priorities: dict[str, set[str]] = {each.id: set() for each in sent}
        self._by_lead = {each.lead: each.id for each in sent}
        self._invites = {
            row_id("invite REQUEST", each.id, 0, INVITE, who): each.id
            for each in sent
            for who in ("customer", "team")
        }

    async def read_tables(self, dsn: str) -> None:
        connection = await asyncpg.connect(dsn)
        try:
            for row in await connection.fetch("SELECT * FROM tasks"):
                name = self._by_lead[row["lead_id"]]
                self.effects[name][f"task {row['task_type']} for {row['assigned_to_id']}"] += 1
                self.priorities[name].add(row["priority"])
            for row in await connection.fetch("SELECT * FROM lead_activities"):
                name = self._by_lead[row["lead_id"]]
                self.effects[name][f"activity {row['activity_type']}"] += 1
            for row in await connection.fetch("SELECT * FROM leads WHERE status <> 'new'"):
                name = self._by_lead[row["lead_id"]]
                self.effects[name][f"lead: new to {row['status']}"] += 1
        finally:
            await connection.close()

    def read_outside(self, far: Outside) -> None:
        for request in far.asked:
            if request.what.startswith("POST /slack"):
                name = _named_in(request.body["text"])
            else:
                assert request.key
                name = self._by_lead[request.body["lead_id"]]
            self.effects[name][request.what] += 1
        for mail in far.mailbox.messages:
            if mail.is_multipart():
                (name,) = (n for i, n in self._invites.items() if i in mail["Message-ID"])
                self.effects[name][f"invite to {mail['To']}"] += 1
            else:
                self.effects[_named_in(mail.get_content())][f"mail to {mail['To']}"] += 1

    def read_replies(self, records: list[Any]) -> None:
        for record in records:
            body = json.loads(record.value)
            texts = [line for line in body["text"].splitlines() if line.startswith("text of ")]
            self.effects[body["in_reply_to"]]["texts: " + ", ".join(texts)] += 1


def _named_in(text: str) -> str:
    match = _MESSAGE.search(text)
    assert match is not None, text
    return match[1]


def check_priorities(sent: Sent, found: set[str]) -> None:
    """A plan's priority holds for every task of its message."""
    for action, lowest in (("priority_high", "high"), ("priority_critical", "critical")):
        if action in sent.plan.actions:
            assert min(_RANK[priority] for priority in found) >= _RANK[lowest], sent


@pytest.mark.timeout(240)
@pytest.mark.parametrize("configured", [True, False], ids=["every service", "none"])
async def test_every_action_has_the_effect_that_its_table_names(
    stage: Stage, configured: bool
) -> None:
    table = with_services() if configured else without()
    sent = messages()
    assert len(sent) > 200
    assert {action for each in sent for action in each.plan.actions} == set(table)
    assert len(table) == 60
    stage.create_topics(4)
    dsn = stage.environment["STREAMAPP_DATABASE_URL"]
    connection = await asyncpg.connect(dsn)
    await connection.executemany(
        "INSERT INTO leads (lead_id, business_id, tenant_id, status) "
        "VALUES ($1, 'b-1', 't-1', 'new')",
        [(each.lead,) for each in sent],
    )
    await connection.close()
    environment: dict[str, str] = {}

    def configure(url: str, port: int) -> dict[str, str]:
        environment.update((everything if configured else nothing)(url, port))
        return environment

    async with outside(configure) as far:
        worker = stage.worker(**environment)
        worker.start()
        await worker.wait_until_ready()
        await send(worker.settings, [each.record for each in sent])
        await wait_until_done(worker.settings, within=WITHIN)
        found = Found(sent)
        await found.read_tables(dsn)
        found.read_outside(far)
        found.read_replies(await read_all(worker.settings, worker.settings.outbound_topic))
        assert not await read_all(worker.settings, worker.settings.dlq_topic)
        metrics = await worker.metrics()
        assert await worker.stop() == 0

    for each in sent:
        assert found.effects[each.id] == wanted(each, table), each
        check_priorities(each, found.priorities[each.id])
    if configured:
        assert len({request.key for request in far.asked if request.key}) == sum(
            bool(request.key) for request in far.asked
        )
    else:
        assert not far.asked
        assert not far.mailbox.envelopes
    done = metrics["streamapp_actions_total"]
    assert all(done[action, "done"] > 0 for action in table)
    assert sum(value for (_, status), value in done.items() if status == "failed") == 0
