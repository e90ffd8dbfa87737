"""Look-ups that come at the same time share one query."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Generic, TypeVar

BATCH = 500  # keys in one query
GATHER = 0.005  # seconds; under load, what the next query waits for more keys to share it

K = TypeVar("K")
V = TypeVar("V")


class SharedLookups(Generic[K, V]):
    """``query`` gives the values of all keys that it is asked for; its errors reach who waits."""

    def __init__(self, name: str, query: Callable[[Sequence[K]], Awaitable[Mapping[K, V]]]) -> None:
        self._name = name
        self._query = query
        self._waiting: dict[K, list[asyncio.Future[V]]] = {}
        self._under_way: frozenset[K] = frozenset()
        self._task: asyncio.Task[None] | None = None

    async def get(self, key: K) -> V:
        """Whoever asks while a query runs is in the next one, whose answer is newer."""
        future: asyncio.Future[V] = asyncio.get_running_loop().create_future()
        self._ask(key).append(future)
        return await future

    def refresh(self, key: K) -> None:
        """Have a key asked for that nobody waits for, unless it is being asked for already."""
        if key not in self._under_way:
            self._ask(key)

    def _ask(self, key: K) -> list[asyncio.Future[V]]:
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._look_up(), name=self._name)
        return self._waiting.setdefault(key, [])

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        for futures in self._waiting.values():
            for future in futures:
                future.cancel()

    async def _look_up(self) -> None:
        # A lone look-up is made at once.
        alone = True
        while self._waiting:
            if not alone and len(self._waiting) < BATCH:
                await asyncio.sleep(GATHER)
            alone = False
            batch = {key: self._waiting.pop(key) for key in list(self._waiting)[:BATCH]}
            self._under_way = frozenset(batch)
            try:
                found = await self._query(list(batch))
            except Exception as error:
                for future in _open(batch.values()):
                    future.set_exception(error)
            else:
                for key, futures in batch.items():
                    for future in _open([futures]):
                        future.set_result(found[key])
            finally:
                self._under_way = frozenset()


def _open(waiting: Iterable[list[asyncio.Future[V]]]) -> Iterator[asyncio.Future[V]]:
    """Those who wait still."""
    return (future for futures in waiting for future in futures if not future.done())
