"""Named places between two durable actions, where a test can end the process.

``reach`` does nothing unless a test armed something. A worker is armed by its environment, and
only one that says it is a test: ``STREAMAPP_ENVIRONMENT=test`` and
``STREAMAPP_CRASH_POINT=step.started:3``, which ends the process by SIGKILL when it passes that
point for the third time. What has to hold after that is in ``docs/guarantees.md``; the suite
fails for two durable actions without a point between them, and for a point that nothing armed.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

POINTS = {
    "epoch.raised": "the epoch is raised, the group has not confirmed us yet",
    "journal.written": "a transaction is complete, its COMMIT is not sent",
    "journal.committed": "a transaction is durable, nobody was told",
    "step.started": "STARTED is durable, the call has not begun",
    "step.answered": "the service has answered, its answer is not durable",
    "letter.sent": "a letter from before a saga is published, its record is not acknowledged",
    "letter.stored": "a letter that no topic takes is in the table, its sender was not told",
    "record.durable": "the outcome is durable, the record is neither acknowledged nor marked",
    "record.marked": "the record is acknowledged in memory and marked, no offset is committed",
    "offsets.drained": "a hand-over is done with its work, its offsets are not committed",
    "offsets.committed": "offsets of the input topic are committed",
    "outbox.sent": "an outbox row is with the producer, the broker has not answered",
    "outbox.acknowledged": "outbox rows are published and not marked",
    "outbox.marked": "outbox rows are marked",
    "dead_letter.stored": "a letter of the topic is in the table, its offset is not committed",
    "dead_letter.committed": "offsets of the dead-letter topic are committed",
    "delivery.sending": "a reply is durably being sent, its request has not begun",
    "delivery.answered": "WhatsApp has answered, its answer is not durable",
    "delivery.settled": "what came of a reply is durable, its record is not acknowledged",
    "delivery.committed": "offsets of the outbound topic are committed",
    "redrive.marked": "a dead letter is marked as redriven, its record is not sent",
    "redrive.sent": "a redriven record is with the broker, who asked was not told",
    "retention.deleted": "a batch of old rows is deleted, others are not",
}


def _off(point: str) -> None:
    """Nothing is armed."""


_hook: Callable[[str], None] = _off


def reach(point: str) -> None:
    """The process has come to this point."""
    _hook(point)


def arm(hook: Callable[[str], None] | None) -> None:
    """Call ``hook`` with the name of each point that is reached; None: nothing any more."""
    global _hook
    _hook = hook or _off


def parse(text: str) -> tuple[str, int]:
    """A point and the pass at which it ends the process, from ``point`` or ``point:pass``.

    Raises ``ValueError`` for a point that does not exist and a pass below 1.
    """
    point, _, number = text.partition(":")
    if point not in POINTS:
        raise ValueError(f"must be a point ({', '.join(POINTS)}), with :N for its N-th pass")
    if number and not (number.isdecimal() and int(number) > 0):
        raise ValueError("the pass of a crash point is a number from 1 on")
    return point, int(number or 1)


def arm_for(text: str | None) -> None:
    """End this process where the setting says, if it says so."""
    if text is not None:
        kill_at(*parse(text))


def kill_at(point: str, number: int) -> None:
    """End this process by SIGKILL when it reaches the point for the ``number``-th time."""
    left = number

    def hook(reached: str) -> None:
        nonlocal left
        if reached == point:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    arm(hook)
