"""What a worker knows of businesses: the newest within seconds, one query, bounded."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from streamapp.actions.base import Capabilities
from streamapp.storage.business_directory import BusinessDirectory
from streamapp.storage.businesses import BusinessStore, Stored, changed
from streamapp.storage.health import DatabaseHealth
from tests.support.bench import Bench
from tests.support.waiting import until

REFRESH = 2.0
LIMIT = 5


class CountingStore(BusinessStore):
    """Notes what is asked for; ``error`` is raised so long as it is set."""

    def __init__(self, pool: Any) -> None:
        super().__init__(pool)
        self.asked: list[list[str]] = []
        self.error: Exception | None = None
        self.hold: asyncio.Event | None = None

    async def get_all(self, business_ids: Any) -> list[Stored]:
        self.asked.append(sorted(business_ids))
        if self.hold is not None:
            await self.hold.wait()
        if self.error is not None:
            raise self.error
        return await super().get_all(business_ids)


class Stand:
    def __init__(self, bench: Bench) -> None:
        self.pool = bench.pool
        self.store = CountingStore(bench.pool)
        self.now = 1000.0
        self.health = DatabaseHealth()
        self.directory = BusinessDirectory(
            self.store,
            self.health,
            Capabilities(texts={"faq": "The program's."}),
            refresh=REFRESH,
            limit=LIMIT,
            clock=lambda: self.now,
        )

    async def set(self, business_id: str, text: str) -> Stored:
        document = {"texts": {"faq": {"en": text}}}
        return await self.store.set(business_id, "tester", lambda before: document)

    async def text(self, business_id: str = "b-1") -> str | None:
        found = (await self.directory.find(business_id)).capabilities.templates.get("faq", {})
        return found.get("en")


@pytest.fixture
async def stand(bench: Bench) -> AsyncIterator[Stand]:
    stand = Stand(bench)
    yield stand
    await stand.directory.close()


async def test_a_business_without_settings_has_the_program_s(stand: Stand) -> None:
    assert await stand.text() is None
    found = await stand.directory.find("b-1")
    assert found.capabilities.texts == {"faq": "The program's."}
    assert stand.store.asked == [["b-1"]], "that there is nothing is known, too"


async def test_within_the_time_nothing_is_asked_for(stand: Stand) -> None:
    await stand.set("b-1", "first")
    assert await stand.text() == "first"
    await stand.set("b-1", "second")
    stand.now += REFRESH / 2 - 0.01
    assert await stand.text() == "first"
    assert len(stand.store.asked) == 1


async def test_after_it_the_next_message_has_the_change(stand: Stand) -> None:
    await stand.set("b-1", "first")
    assert await stand.text() == "first"
    await stand.set("b-1", "second")
    stand.now += REFRESH
    assert await stand.text() == "second"
    await stand.pool.execute("delete from business_settings")
    stand.now += REFRESH
    assert await stand.text() is None
    await stand.set("b-1", "third")
    stand.now += REFRESH
    assert await stand.text() == "third"


async def test_a_busy_business_is_asked_for_ahead_and_nobody_waits(stand: Stand) -> None:
    await stand.set("b-1", "first")
    assert await stand.text() == "first"
    await stand.set("b-1", "second")
    stand.store.hold = asyncio.Event()
    stand.now += REFRESH / 2
    for _ in range(3):
        assert await stand.text() == "first", "the one who has it asked for does not wait"
    await asyncio.sleep(0)
    assert len(stand.store.asked) == 2, "and it is asked for once"
    stand.store.hold.set()
    stand.now += REFRESH / 2
    assert await stand.text() == "second"
    assert len(stand.store.asked) <= 3


async def test_all_who_ask_at_once_share_the_queries(stand: Stand) -> None:
    await stand.set("b-1", "one")
    await stand.set("b-2", "two")
    stand.store.hold = asyncio.Event()
    asking = [asyncio.create_task(stand.text(f"b-{n % 3}")) for n in range(300)]
    await asyncio.sleep(0)
    stand.store.hold.set()
    found = await asyncio.gather(*asking)
    assert {(n % 3, text) for n, text in enumerate(found)} == {(0, None), (1, "one"), (2, "two")}
    assert len(stand.store.asked) <= 3


async def test_who_gives_up_does_not_take_the_answer_from_others(stand: Stand) -> None:
    await stand.set("b-1", "one")
    stand.store.hold = asyncio.Event()
    first, second = (asyncio.create_task(stand.text()) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    stand.store.hold.set()
    assert await second == "one"


async def test_an_outage_is_waited_for(stand: Stand) -> None:
    await stand.set("b-1", "one")
    stand.store.error = asyncpg.CannotConnectNowError("starting up")
    asking = asyncio.create_task(stand.text())
    await until(lambda: not stand.health.available)
    assert not asking.done()
    stand.store.error = None
    assert await asyncio.wait_for(asking, 10) == "one"


async def test_a_defect_fails_those_who_wait_and_nobody_later(stand: Stand) -> None:
    stand.store.error = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        await stand.text()
    stand.store.error = None
    assert await stand.text() is None


async def test_no_more_are_kept_than_the_limit(stand: Stand) -> None:
    for n in range(LIMIT + 3):
        await stand.directory.find(f"b-{n}")
        await stand.directory.find("b-0")  # asked for all the time
    assert len(stand.directory) == LIMIT
    asked = len(stand.store.asked)
    await stand.directory.find("b-0")
    assert len(stand.store.asked) == asked
    await stand.directory.find("b-1")
    assert len(stand.store.asked) == asked + 1


async def test_settings_that_cannot_be_used_are_no_message_s_fault(
    stand: Stand, caplog: pytest.LogCaptureFixture
) -> None:
    await stand.set("b-1", "good")
    assert await stand.text() == "good"
    secret = '{"services": {"order": {"url": "secret-of-theirs"}}, "nonsense": 1}'
    await stand.pool.execute(
        "update business_settings set settings = $1,"
        " revision = nextval('business_settings_revision')",
        secret,
    )
    await stand.pool.execute(
        "insert into business_settings (business_id, settings, updated_by) values ('b-2', $1, '')",
        secret,
    )
    stand.now += REFRESH
    with caplog.at_level(logging.ERROR):
        assert await stand.text() == "good"
        assert await stand.text("b-2") is None
    assert "nonsense" in caplog.text
    assert "secret-of-theirs" not in caplog.text


async def test_what_is_at_hand_is_told_without_asking(stand: Stand) -> None:
    await stand.set("b-1", "one")
    assert "faq" not in stand.directory.at_hand("b-1").capabilities.templates
    await stand.directory.find("b-1")
    assert "faq" in stand.directory.at_hand("b-1").capabilities.templates


async def test_every_change_is_audited_without_its_values(stand: Stand) -> None:
    await stand.set("b-1", "a secret text")
    await stand.set("b-1", "another")
    rows = await stand.pool.fetch("select * from audit_log order by audit_id")
    assert [(row["actor"], row["action"], row["target"]) for row in rows] == [
        ("tester", "business.set", "b-1")
    ] * 2
    assert "texts" in rows[0]["details"]
    assert "texts.faq.en" in rows[1]["details"]
    assert "secret" not in rows[0]["details"]


async def test_a_refused_change_changes_nothing(stand: Stand) -> None:
    await stand.set("b-1", "kept")

    def refuse(before: Any) -> dict[str, Any]:
        assert before == {"texts": {"faq": {"en": "kept"}}}
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await stand.store.set("b-1", "tester", refuse)
    stored = await stand.store.get("b-1")
    assert stored is not None
    assert stored.document == {"texts": {"faq": {"en": "kept"}}}
    assert await stand.pool.fetchval("select count(*) from audit_log") == 1
    assert await stand.store.get("b-9") is None


def test_what_differs_in_two_documents() -> None:
    before = {"a": 1, "b": {"c": 1, "d": 2}, "e": {}}
    assert changed(before, {"a": 1, "b": {"c": 1, "d": 3}, "f": 0}) == ["b.d", "e", "f"]
