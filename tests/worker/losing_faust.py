"""A worker whose Faust fetches records and does not deliver them: ``python -m`` this, ``worker``.

It passes over a few records at the beginning, some in the middle, and the last ones of a batch,
each once: what was seen to happen, rarely, around rebalances.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from faust.transport.consumer import Consumer

EVERY = 40  # records; of so many, some are passed over
SOME = 3


def lose_records() -> None:
    """Let Faust pass records over from here on, each one once."""
    getmany = Consumer.getmany
    seen: set[tuple[Any, int]] = set()

    async def losing(self: Any, timeout: float) -> AsyncIterator[tuple[Any, Any]]:
        async for partition, message in getmany(self, timeout):
            place = partition, message.offset
            # Not those of the changelogs: losing marks is harmless, and another matter.
            if (
                not partition.topic.endswith("-changelog")
                and message.offset % EVERY < SOME
                and place not in seen
            ):
                seen.add(place)
                continue
            yield partition, message

    Consumer.getmany = losing


if __name__ == "__main__":
    from streamapp.cli import main

    lose_records()
    main()
