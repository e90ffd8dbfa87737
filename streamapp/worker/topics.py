"""The topics: what there is, what is missing, what is set wrongly."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import IncompatibleBrokerVersion, KafkaError, for_code

from streamapp.settings import Settings

# What a dead letter's headers may add to its record (protocol, 5).
DEAD_LETTER_OVERHEAD = 64 * 1024
DEFAULT_MAX_MESSAGE = 1_048_588  # Kafka's own default of max.message.bytes
_UNKNOWN_TOPIC = 3
_TOPIC_ALREADY_EXISTS = 36
_CONFIG_ATTEMPTS = 10

# The client logs and raises as it likes while a broker is away.
BROKER_ERRORS: tuple[type[BaseException], ...] = (KafkaError, OSError, asyncio.TimeoutError)


class TopicError(Exception):
    """A topic could not be created."""


@dataclass(frozen=True, slots=True)
class TopicReport:
    """What was found or done. ``problems`` are sentences for an operator."""

    name: str
    partitions: int
    created: bool
    problems: tuple[str, ...] = ()


class TopicAdmin:
    """The few questions that we ask a cluster about its topics."""

    def __init__(self, client: Any) -> None:
        self._client = client

    async def partitions(self) -> dict[str, int]:
        """Every topic with its number of partitions. Creates none, unlike asking by name."""
        return {
            topic["topic"]: len(topic["partitions"])
            for topic in await self._client.describe_topics()
        }

    async def config(self, topic: str) -> dict[str, str] | None:
        """A topic's settings, defaults included; None where the broker does not tell."""
        resource = ConfigResource(ConfigResourceType.TOPIC, topic)
        for attempt in range(_CONFIG_ATTEMPTS):
            try:
                (response,) = await self._client.describe_configs([resource])
            except IncompatibleBrokerVersion:
                return None
            code, _, _, _, entries = response.resources[0]
            if code == 0:
                return {entry[0]: entry[1] for entry in entries}
            if code != _UNKNOWN_TOPIC:
                return None
            # Created a moment ago, and this broker has not heard of it yet.
            await asyncio.sleep(0.05 * (attempt + 1))
        return None

    async def create(
        self, topic: str, partitions: int, replication: int, config: dict[str, str]
    ) -> None:
        """Create a topic; one that is there by now is left alone. Raises ``TopicError``."""
        new = NewTopic(topic, partitions, replication, topic_configs=config)
        try:
            response = await self._client.create_topics([new])
        except (AttributeError, IncompatibleBrokerVersion) as error:
            # A cluster without a controller: the client trips over the missing node.
            raise TopicError(
                f"this broker does not create topics: create {topic} with its own tools"
            ) from error
        for entry in response.topic_errors:
            code = entry[1]
            if code not in (0, _TOPIC_ALREADY_EXISTS):
                text = entry[2] if len(entry) > 2 and entry[2] else for_code(code).__name__
                raise TopicError(f"cannot create topic {topic}: {text}")


@asynccontextmanager
async def topic_admin(settings: Settings, timeout: float = 10.0) -> AsyncIterator[TopicAdmin]:
    """Connect to the cluster; ``timeout`` (seconds) limits each request."""
    client = AIOKafkaAdminClient(
        bootstrap_servers=settings.kafka_bootstrap_servers,
        request_timeout_ms=max(1, int(timeout * 1000)),
    )
    try:
        await client.start()
        yield TopicAdmin(client)
    finally:
        await client.close()


async def ensure_topics(settings: Settings, admin: TopicAdmin) -> list[TopicReport]:
    """Create the topics that are missing and look at those that are there.

    Settings of existing topics are never changed: an operator may have meant them. Raises
    ``TopicError`` and ``BROKER_ERRORS``.
    """
    existing = await admin.partitions()
    names = (settings.input_topic, settings.dlq_topic, settings.outbound_topic)
    reports = []
    for name in names:
        if name in existing:
            problems = tuple(await topic_problems(settings, admin, name))
            reports.append(TopicReport(name, existing[name], False, problems))
            continue
        config: dict[str, str] = {}
        if name == settings.input_topic:
            config = input_config(settings)
        elif name == settings.dlq_topic:
            config = {"max.message.bytes": str(await dead_letter_size(settings, admin))}
        await admin.create(name, settings.topic_partitions, settings.topic_replication, config)
        reports.append(TopicReport(name, settings.topic_partitions, True))
    return reports


def input_config(settings: Settings) -> dict[str, str]:
    """Settings of a new input topic: no record outlives the window of deduplication.

    Kafka deletes whole segments, so they are a good deal shorter than the retention.
    """
    retention = int(min(settings.input_retention, settings.dedup_window) * 1000)
    return {"retention.ms": str(retention), "segment.ms": str(max(retention // 8, 60_000))}


async def dead_letter_size(settings: Settings, admin: TopicAdmin) -> int:
    """The ``max.message.bytes`` that the dead-letter topic needs."""
    config = await admin.config(settings.input_topic) or {}
    return int(config.get("max.message.bytes", DEFAULT_MAX_MESSAGE)) + DEAD_LETTER_OVERHEAD


async def topic_problems(settings: Settings, admin: TopicAdmin, name: str) -> list[str]:
    """What is set wrongly on an existing topic, as sentences; none where nobody can tell."""
    config = await admin.config(name)
    if config is None:
        return []
    if name == settings.input_topic:
        retention = int(config.get("retention.ms", -1))
        if "delete" in config.get("cleanup.policy", "delete") and (
            retention < 0 or retention > settings.dedup_window * 1000
        ):
            shown = "unlimited" if retention < 0 else f"{retention / 1000:g} s"
            return [
                f"retention of {name} is {shown}, longer than the deduplication window of "
                f"{settings.dedup_window:g} s: records older than the window would be "
                "worked on again when offsets are reset"
            ]
    if name == settings.dlq_topic:
        size, needed = int(config["max.message.bytes"]), await dead_letter_size(settings, admin)
        if size < needed:
            return [
                f"max.message.bytes of {name} is {size}, but a dead letter may need {needed}: "
                "large ones would lose their stack trace or go straight into the table"
            ]
    return []
