"""Sends a dead letter again: the one operation behind ``dlq retry`` and the API."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Protocol

from aiokafka.errors import KafkaError

from streamapp.pipeline.outcomes import Headers
from streamapp.resilience import crash_points
from streamapp.storage.operations import Refused
from streamapp.storage.redrives import Redriven, Redrives
from streamapp.worker.producer import DEFINITE, NoSuchPartition

ACK_WITHIN = 10.0  # seconds


class BrokerRefused(Refused):
    """The broker does not take the record: the letter stands as before."""


class NotConfirmed(Exception):
    """Nobody knows whether the broker has the record; sending it again is harmless."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A redrive that the broker has: the letter is ``retrying`` until its message has ended."""

    redriven: Redriven
    offset: int

    def to_json(self) -> dict[str, Any]:
        redriven = self.redriven
        return {
            "dead_letter_id": redriven.dead_letter_id,
            "message_id": redriven.message_id,
            "action": redriven.redrive.action,
            "run": redriven.redrive.run,
            "redrive": redriven.redrive.id,
            "status": "retrying",
            "topic": redriven.topic,
            "partition": redriven.partition,
            "offset": self.offset,
        }


class Sender(Protocol):
    """What is needed of ``worker.producer.Producer``."""

    async def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: Headers,
        partition: int | None = None,
    ) -> asyncio.Future[object]: ...


class Redriver:
    """Marks first, then sends. In between, a crash leaves a letter that may be sent again."""

    def __init__(self, redrives: Redrives, sender: Sender, ack_within: float = ACK_WITHIN) -> None:
        self._redrives = redrives
        self._sender = sender
        self._ack_within = ack_within

    async def retry(self, name: str, actor: str, value: bytes | None = None) -> Sent:
        """Redrive the dead letter ``name`` on behalf of ``actor``.

        Raises ``Refused`` (``Unknown``, ``BrokerRefused``), ``NotConfirmed``, and
        ``faults.DATABASE_ERRORS``.
        """
        redriven = await self._redrives.mark(name, actor, value)
        crash_points.reach("redrive.marked")
        try:
            async with asyncio.timeout(self._ack_within):
                future = await self._sender.send(
                    redriven.topic,
                    redriven.key,
                    redriven.value,
                    redriven.headers,
                    redriven.partition,
                )
                # Shielded: what is with the producer may arrive later, as well as not.
                metadata = await asyncio.shield(future)
        except (*DEFINITE, NoSuchPartition) as error:
            text = f"{type(error).__name__}: {error}"
            await self._redrives.take_back(redriven, actor, text)
            raise BrokerRefused(f"the broker refuses the record for good: {text}") from error
        except (KafkaError, TimeoutError) as error:
            raise NotConfirmed(
                f"dead letter {redriven.dead_letter_id} is marked, but the broker did not confirm "
                f"the record ({type(error).__name__}): ask for the same again, which is harmless"
            ) from error
        crash_points.reach("redrive.sent")
        return Sent(redriven, getattr(metadata, "offset", -1))
