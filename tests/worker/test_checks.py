"""Start-up checks: each wrong thing is found, named, and comes with what to do."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any

import asyncpg
import pytest

from streamapp.settings import Settings, load
from streamapp.worker import checks
from streamapp.worker.checks import Check, check_broker, check_database, wait_until_ready
from streamapp.worker.topics import TopicAdmin
from tests.worker.test_topics import Cluster

NOWHERE = "127.0.0.1:1"


def settings(database: str = f"postgresql://{NOWHERE}/none", **changes: str) -> Settings:
    given = {f"STREAMAPP_{name.upper()}": value for name, value in changes.items()}
    return load({"DATABASE_URL": database, "STREAMAPP_KAFKA_BOOTSTRAP_SERVERS": NOWHERE, **given})


def by_name(found: list[Check]) -> dict[str, Check]:
    return {check.name: check for check in found}


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """A cluster in which everything is as it should be."""
    fake = Cluster(
        ai_results={"retention.ms": "1000"},
        ai_results_dlq={"max.message.bytes": "9000000"},
        whatsapp_outbound={},
    )

    @contextlib.asynccontextmanager
    async def connected(*_: object) -> AsyncIterator[TopicAdmin]:
        yield TopicAdmin(fake)

    monkeypatch.setattr(checks, "topic_admin", connected)
    return fake


async def test_all_is_well(cluster: Cluster) -> None:
    found = by_name(await check_broker(settings(), 5.0))
    assert found.keys() == {"broker", "topics", "changelog", "retention", "dead letter size"}
    assert all(check.ok for check in found.values()), found


async def test_missing_topics_are_named(cluster: Cluster) -> None:
    del cluster.counts["ai-results-dlq"]
    check = by_name(await check_broker(settings(), 5.0))["topics"]
    assert check.fatal
    assert "ai-results-dlq" in check.detail
    assert "whatsapp" not in check.detail
    assert "streamapp migrate" in check.remedy


async def test_a_changelog_with_other_partitions_stops_a_worker(cluster: Cluster) -> None:
    cluster.counts["streamapp-seen-changelog"] = 4
    assert by_name(await check_broker(settings(), 5.0))["changelog"].ok
    cluster.counts["streamapp-seen-changelog"] = 8
    check = by_name(await check_broker(settings(), 5.0))["changelog"]
    assert check.fatal
    assert check.remedy
    other = by_name(await check_broker(settings(consumer_group="other"), 5.0))["changelog"]
    assert other.ok


@pytest.mark.parametrize(
    ("name", "topic", "config"),
    [
        ("retention", "ai-results", {"retention.ms": "-1"}),
        ("dead letter size", "ai-results-dlq", {"max.message.bytes": "1"}),
    ],
)
async def test_topic_settings_are_warnings(
    cluster: Cluster, name: str, topic: str, config: dict[str, str]
) -> None:
    cluster.configs[topic] = config
    check = by_name(await check_broker(settings(), 5.0))[name]
    assert not check.ok
    assert not check.fatal
    assert topic in check.remedy


async def test_a_broker_that_tells_no_settings_is_unknown_not_wrong(cluster: Cluster) -> None:
    cluster.tells_configs = False
    found = by_name(await check_broker(settings(), 5.0))
    assert found["retention"].ok
    assert "unknown" in found["retention"].detail


async def test_an_unreachable_broker_is_told_with_its_address() -> None:
    (check,) = await check_broker(settings(), 5.0)
    assert check.fatal
    assert check.transient
    assert NOWHERE in check.detail
    assert "STREAMAPP_KAFKA_BOOTSTRAP_SERVERS" in check.remedy


@pytest.fixture
def silent() -> Iterator[str]:
    """An address that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


async def test_a_silent_broker_and_database_do_not_hold_the_checks_up(silent: str) -> None:
    wrong = settings(f"postgresql://{silent}/none", kafka_bootstrap_servers=silent)
    found = by_name(await asyncio.wait_for(checks.run_checks(wrong, 0.3), 30))
    assert found["broker"].fatal
    assert found["database"].fatal
    assert "0.3 s" in found["database"].detail


async def test_the_database_and_its_migrations(database: str) -> None:
    found = by_name(await check_database(settings(database), 10.0))
    assert found["database"].ok
    assert found["migrations"].ok
    connection = await asyncpg.connect(database)
    try:
        await connection.execute("drop table streamapp_version")
        check = by_name(await check_database(settings(database), 10.0))["migrations"]
        assert check.fatal
        assert "0001_initial" in check.detail
        assert "streamapp migrate" in check.remedy
        await connection.execute("create table streamapp_version (version_num text)")
        await connection.execute("insert into streamapp_version values ('9999')")
    finally:
        await connection.close()
    check = by_name(await check_database(settings(database), 10.0))["migrations"]
    assert check.fatal
    assert "9999" in check.detail


async def test_an_unreachable_database_is_told_without_its_password() -> None:
    wrong = settings(f"postgresql://user:hunter2@{NOWHERE}/none")
    (check,) = await check_database(wrong, 5.0)
    assert check.fatal
    assert check.transient
    assert "hunter2" not in repr(check)


async def test_an_address_that_cannot_be_read_is_not_quoted() -> None:
    (check,) = await check_database(settings("postgresql://user:hunter2/x@h:p:q/none"), 5.0)
    assert check.fatal
    assert "hunter2" not in repr(check)


class Answers:
    """Gives one list of answers after the other; the last one for ever."""

    def __init__(self, *answers: list[Check]) -> None:
        self.answers = list(answers)
        self.asked = 0

    async def __call__(self, _: Settings, timeout: float) -> list[Check]:
        assert timeout > 0
        self.asked += 1
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


GOOD = Check("database", True, "answers")
AWAY = Check("database", False, "away", transient=True)
WRONG = Check("topics", False, "missing")
WARNING = Check("retention", False, "long", severity="warning")


@pytest.fixture
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "CHECK_INTERVAL", 0.001)


@pytest.mark.usefixtures("_at_once")
@pytest.mark.parametrize(
    ("answers", "asked"),
    [
        ([[GOOD]], 1),
        ([[AWAY], [AWAY, WARNING], [GOOD]], 3),
        ([[AWAY, WRONG]], 1),  # waiting does not help
        ([[GOOD, WARNING]], 1),
    ],
)
async def test_start_up_waits_for_what_may_come_back(
    monkeypatch: pytest.MonkeyPatch, answers: list[list[Check]], asked: int
) -> None:
    given: Any = Answers(*answers)
    monkeypatch.setattr(checks, "run_checks", given)
    assert await wait_until_ready(settings()) == answers[-1]
    assert given.asked == asked


@pytest.mark.usefixtures("_at_once")
async def test_start_up_gives_up_after_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    given: Any = Answers([AWAY])
    monkeypatch.setattr(checks, "run_checks", given)
    assert await wait_until_ready(settings(startup_timeout="0.05")) == [AWAY]
    assert given.asked > 1
