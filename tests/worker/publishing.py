"""A producer that takes, refuses or waits, as told for each value."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from streamapp.pipeline.dead_letter import DeadLetter
from streamapp.pipeline.outcomes import Headers, Record

Answer = BaseException | None
Sent = tuple[str, bytes | None, bytes | None, Headers]


@dataclass
class FakeProducer:
    """``at_once`` is raised by ``send``, ``later`` by its future; ``hold`` leaves that open."""

    at_once: Callable[[Sent], Answer] = lambda sent: None
    later: Callable[[Sent], Answer] = lambda sent: None
    hold: Callable[[Sent], bool] = lambda sent: False
    sent: list[Sent] = field(default_factory=list)
    held: list[asyncio.Future[object]] = field(default_factory=list)
    gone: set[str] = field(default_factory=set)  # topics that do not exist (any more)

    async def send(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Headers
    ) -> asyncio.Future[object]:
        await asyncio.sleep(0)
        record = (topic, key, value, headers)
        if (error := self.at_once(record)) is not None:
            raise error
        self.sent.append(record)
        future: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        if self.hold(record):
            self.held.append(future)
        elif (error := self.later(record)) is not None:
            future.set_exception(error)
        else:
            future.set_result(None)
        return future

    async def missing(self, topic: str) -> bool:
        return topic in self.gone

    @property
    def values(self) -> list[bytes | None]:
        return [value for _, _, value, _ in self.sent]


@dataclass
class FakeStore:
    """The table of dead letters; ``away`` is raised while it is set."""

    stored: list[tuple[Record, DeadLetter | None]] = field(default_factory=list)
    away: BaseException | None = None
    tried: int = 0

    async def store(self, record: Record, letter: DeadLetter | None) -> bool:
        self.tried += 1
        await asyncio.sleep(0)
        if self.away is not None:
            raise self.away
        self.stored.append((record, letter))
        return True
