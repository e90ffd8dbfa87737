"""Whether everything that a worker needs is there: asked at start-up and by ``doctor``."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from streamapp.settings import Settings
from streamapp.storage.connection import connect
from streamapp.storage.faults import DATABASE_ERRORS
from streamapp.storage.migrations import MigrationError, pending
from streamapp.worker.topics import BROKER_ERRORS, TopicAdmin, topic_admin, topic_problems

# ValueError: an address that the client cannot read.
_BROKER: tuple[type[BaseException], ...] = (*BROKER_ERRORS, ValueError)
_DATABASE: tuple[type[BaseException], ...] = (*DATABASE_ERRORS, ValueError)

CHECK_INTERVAL = 1.0  # seconds between attempts while start-up waits

Severity = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Check:
    """One question and its answer. A failed ``warning`` does not stop a worker."""

    name: str
    ok: bool
    detail: str
    remedy: str = ""
    severity: Severity = "error"
    transient: bool = False  # may get right by waiting: the other side is not up yet

    @property
    def fatal(self) -> bool:
        return not self.ok and self.severity == "error"


async def wait_until_ready(settings: Settings) -> list[Check]:
    """The checks of start-up: waits for broker and database up to ``startup_timeout``.

    Returns the last answers; a worker starts only when none of them is ``fatal``.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + settings.startup_timeout
    while True:
        left = deadline - loop.time()
        checks = await run_checks(settings, timeout=max(left, 0.1))
        failed = [check for check in checks if check.fatal]
        left = deadline - loop.time()
        if not failed or left <= 0 or not all(check.transient for check in failed):
            return checks
        await asyncio.sleep(min(CHECK_INTERVAL, left))


async def run_checks(settings: Settings, timeout: float) -> list[Check]:
    """All checks, once, within about ``timeout`` seconds."""
    broker, database = await asyncio.gather(
        check_broker(settings, timeout), check_database(settings, timeout)
    )
    return [Check("settings", True, "all valid"), *broker, *database]


async def check_broker(settings: Settings, timeout: float) -> list[Check]:
    """Broker reachable, topics there, partitions and settings right."""
    servers = settings.kafka_bootstrap_servers
    try:
        async with asyncio.timeout(timeout), topic_admin(settings, timeout) as admin:
            reachable = Check("broker", True, f"{servers} answers")
            return [reachable, *await _check_topics(settings, admin)]
    except _BROKER as error:
        return [
            Check(
                "broker",
                False,
                f"{servers} cannot be reached: {_reason(error, timeout)}",
                "start Kafka, or set STREAMAPP_KAFKA_BOOTSTRAP_SERVERS",
                transient=not isinstance(error, ValueError),
            )
        ]


async def _check_topics(settings: Settings, admin: TopicAdmin) -> list[Check]:
    existing = await admin.partitions()
    wanted = (settings.input_topic, settings.dlq_topic, settings.outbound_topic)
    missing = [name for name in wanted if name not in existing]
    if missing:
        return [Check("topics", False, f"missing: {', '.join(missing)}", "run `streamapp migrate`")]
    shown = ", ".join(f"{name} ({existing[name]} partitions)" for name in wanted)
    return [
        Check("topics", True, shown),
        _check_changelog(settings, existing),
        await _check_config(settings, admin, "retention", settings.input_topic),
        await _check_config(settings, admin, "dead letter size", settings.dlq_topic),
    ]


def _check_changelog(settings: Settings, existing: dict[str, int]) -> Check:
    changelog = f"{settings.consumer_group}-seen-changelog"
    name = "changelog"
    if changelog not in existing:
        return Check(name, True, f"{changelog} is created by the first worker")
    have, want = existing[changelog], existing[settings.input_topic]
    if have == want:
        return Check(name, True, f"{changelog} has {have} partitions, as the input topic")
    return Check(
        name,
        False,
        f"{changelog} has {have} partitions, {settings.input_topic} has {want}",
        f"stop all workers and delete {changelog}: it is rebuilt, and the database knows the "
        "duplicates meanwhile",
    )


async def _check_config(settings: Settings, admin: TopicAdmin, name: str, topic: str) -> Check:
    if await admin.config(topic) is None:
        return Check(name, True, f"unknown: the broker does not tell the settings of {topic}")
    problems = await topic_problems(settings, admin, topic)
    if not problems:
        return Check(name, True, f"{topic} is set as it should be")
    return Check(
        name,
        False,
        "; ".join(problems),
        f"change it with kafka-configs.sh --alter --topic {topic}",
        severity="warning",
    )


async def check_database(settings: Settings, timeout: float) -> list[Check]:
    """Database reachable, migrations applied."""
    try:
        async with asyncio.timeout(timeout):
            connection = await connect(settings, "streamapp-check")
            try:
                version = await connection.fetchval("show server_version")
            finally:
                await connection.close()
            reachable = Check("database", True, f"PostgreSQL {version} answers")
            return [reachable, await _check_migrations(settings)]
    except _DATABASE as error:
        return [
            Check(
                "database",
                False,
                f"cannot be reached: {_database_reason(error, timeout)}",
                "start PostgreSQL, or set STREAMAPP_DATABASE_URL",
                transient=not isinstance(error, ValueError),
            )
        ]


async def _check_migrations(settings: Settings) -> Check:
    name = "migrations"
    try:
        missing: Sequence[str] = await pending(settings.database_url.get_secret_value())
    except MigrationError as error:
        return Check(name, False, str(error), "install a newer version")
    if missing:
        return Check(name, False, f"not applied: {', '.join(missing)}", "run `streamapp migrate`")
    return Check(name, True, "all applied")


def _database_reason(error: BaseException, timeout: float) -> str:
    if isinstance(error, ValueError):
        # Its text quotes parts of the address, which may be those of the password.
        return "its address cannot be read"
    return _reason(error, timeout)


def _reason(error: BaseException, timeout: float) -> str:
    if isinstance(error, TimeoutError) and not str(error):
        return f"no answer within {timeout:g} s"
    text, name = str(error), type(error).__name__
    return text if text.startswith(name) else f"{name}: {text}"
