"""What aiokafka's idempotent producer does to the records after one that fails, put right.

An idempotent producer numbers the records of a partition, and the broker takes them in this
order only. The client does not take back the numbers of a batch that the broker refused (too
large, not authorised): without ``renew_after_failures`` the broker refuses every later record of
that partition, for as long as the process lives. And it gives up a batch whose partition is
without a leader for a while, but not the next ones: without ``never_expire`` these overtake it.

Both reach into the client (``aiokafka>=0.14,<0.15``), which has no setting for either. They are
shown on Apache Kafka in ``tests/kafka``.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.producer.transaction_manager import (
    NO_PRODUCER_EPOCH,
    NO_PRODUCER_ID,
    PidAndEpoch,
)


def never_expire(producer: AIOKafkaProducer) -> None:
    """Keep a batch for as long as its partition has no leader."""
    producer._message_accumulator._batch_ttl = math.inf


def renew_after_failures(producer: AIOKafkaProducer) -> None:
    """Begin a new sequence, under a new producer id, after each batch that failed.

    Called on a producer that has started. A batch under way keeps its id and numbers.
    """
    sender, manager = producer._sender, producer._txn_manager
    send = sender._send_produce_req

    async def send_and_renew(node: int, batches: Mapping[Any, Any]) -> None:
        await send(node, batches)
        # No other batch of these partitions was numbered meanwhile: one is sent at a time, and
        # control has not gone elsewhere since this one failed.
        if any(batch.future.done() and batch.future.exception() for batch in batches.values()):
            manager._pid_and_epoch = PidAndEpoch(NO_PRODUCER_ID, NO_PRODUCER_EPOCH)
            manager._pid_waiter = asyncio.get_running_loop().create_future()
            manager._sequence_numbers.clear()

    sender._send_produce_req = send_and_renew
