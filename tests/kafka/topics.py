"""What tests do to topics: create, delete, limit, forbid."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

ANYBODY = "User:ANONYMOUS"  # who connects without a password


@asynccontextmanager
async def admin(bootstrap: str) -> AsyncIterator[Any]:
    client = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await client.start()
    try:
        yield client
    finally:
        await client.close()


async def create_topic(bootstrap: str, name: str, partitions: int = 1, **config: str) -> None:
    """``config`` has ``_`` where Kafka's settings have a dot."""
    dotted = {key.replace("_", "."): value for key, value in config.items()}
    async with admin(bootstrap) as client:
        response = await client.create_topics([NewTopic(name, partitions, 1, topic_configs=dotted)])
        assert [error[1] for error in response.topic_errors] == [0], response


async def delete_topic(bootstrap: str, name: str) -> None:
    """Delete a topic; gone when this returns."""
    async with admin(bootstrap) as client:
        await client.delete_topics([name])
        async with asyncio.timeout(30):
            while name in await client.list_topics():  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.05)


async def until_in_sync(bootstrap: str, replicas: int) -> None:
    """Wait until every partition of every topic has so many replicas in sync."""
    async with admin(bootstrap) as client, asyncio.timeout(90):
        while True:
            topics = await client.describe_topics()
            if all(
                len(partition["isr"]) == replicas
                for topic in topics
                for partition in topic["partitions"]
            ):
                return
            await asyncio.sleep(0.2)


def _bindings(topic: str) -> list[AclBinding]:
    def acl(operation: AclOperation, permission: AclPermissionType) -> AclBinding:
        return AclBinding(
            ResourceType.TOPIC,
            topic,
            ResourcePatternType.LITERAL,
            ANYBODY,
            "*",
            operation,
            permission,
        )

    # Where a topic has a rule, what no rule allows is forbidden; a DENY comes first.
    return [
        acl(AclOperation.ALL, AclPermissionType.ALLOW),
        acl(AclOperation.WRITE, AclPermissionType.DENY),
    ]


async def forbid_writing(bootstrap: str, topic: str) -> None:
    """Nobody may write to the topic; reading stays allowed."""
    client = AdminClient({"bootstrap.servers": bootstrap})  # its end would end the request
    futures = client.create_acls(_bindings(topic))
    for future in futures.values():
        await asyncio.to_thread(future.result, 30)


async def allow_writing(bootstrap: str, topic: str) -> None:
    """Take all rules of the topic back."""
    every = AclBindingFilter(
        ResourceType.TOPIC,
        topic,
        ResourcePatternType.LITERAL,
        None,
        None,
        AclOperation.ANY,
        AclPermissionType.ANY,
    )
    client = AdminClient({"bootstrap.servers": bootstrap})
    futures = client.delete_acls([every])
    for future in futures.values():
        await asyncio.to_thread(future.result, 30)
