"""What is broken, where and in which order: the same for the same seed.

Every target has a list of faults of its own, carried out one after the other, and the targets
are broken at the same time. A seed gives the lists with all lengths and pauses. The moments are
not in them: a pause begins when the target has recovered, which nobody knows beforehand.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from random import Random


class FaultKind(StrEnum):
    """What can be broken, in words for the person who reads along."""

    KILL = "worker killed"
    TERMINATE = "worker stopped by SIGTERM"
    FREEZE = "worker frozen"
    FORGET = "worker killed and its state directory deleted"
    JOIN_AND_LEAVE = "another worker joins and leaves"
    JOIN_AND_DIE = "another worker joins and is killed"
    POSTGRES_STOP = "PostgreSQL stopped"
    POSTGRES_CRASH = "PostgreSQL crashed"
    POSTGRES_DISCONNECT = "PostgreSQL connections terminated"
    BROKER_STOP = "broker stopped"
    BROKER_KILL = "broker killed"
    ORDERS_REFUSE = "order service refuses"
    ORDERS_LIMIT = "order service limits"
    ORDERS_HANG = "order service hangs"
    ORDERS_LATE = "order service answers too late"
    ORDERS_CUT = "order service cuts connections"
    ORDERS_GARBLE = "order service answers garbage"
    ORDERS_SLOW = "order service is slow"
    MAIL_REFUSE = "mail server refuses"
    MAIL_LATE = "mail server answers too late"
    MANY_BAD = "burst of bad records"
    MANY_AGAIN = "burst of repetitions"


_KINDS = tuple(FaultKind)
WORKER_KINDS = _KINDS[0:4]
JOIN_KINDS = _KINDS[4:6]
POSTGRES_KINDS = _KINDS[6:9]
BROKER_KINDS = _KINDS[9:11]
ORDER_KINDS = _KINDS[11:18]
MAIL_KINDS = _KINDS[18:20]
STREAM_KINDS = _KINDS[20:22]

# Seconds that a fault lasts; of a worker that joins: that it stays once it is at work.
_SECONDS = {
    **dict.fromkeys(_KINDS, (3.0, 9.0)),
    **dict.fromkeys((FaultKind.KILL, FaultKind.TERMINATE, FaultKind.FORGET), (0.2, 4.0)),
    FaultKind.FREEZE: (8.0, 13.0),  # beyond the session timeout
    FaultKind.POSTGRES_STOP: (2.0, 8.0),
    FaultKind.POSTGRES_CRASH: (0.0, 1.0),
    FaultKind.POSTGRES_DISCONNECT: (0.0, 0.0),
    FaultKind.BROKER_STOP: (0.5, 6.0),
    FaultKind.BROKER_KILL: (0.0, 2.0),
    FaultKind.MANY_BAD: (0.0, 0.0),
    FaultKind.MANY_AGAIN: (0.0, 0.0),
}
# Seconds that it usually takes beyond that until the target works again: only for the number of
# faults that a run has time for.
_RECOVERY = {
    **dict.fromkeys((*WORKER_KINDS, *JOIN_KINDS), 12.0),
    **dict.fromkeys(POSTGRES_KINDS, 4.0),
    **dict.fromkeys(BROKER_KINDS, 14.0),
}

Range = tuple[float, float]

WORKER_PAUSE = (5.0, 15.0)  # seconds after a worker is ready
AT_MOST = 4  # workers at the same time
SHORT = 180.0  # seconds; a shorter run has at most one worker that joins at a time

WORKER = "worker-{}"
JOINING = "joining-{}"
POSTGRES, BROKER, ORDERS, MAIL = "PostgreSQL", "broker", "order service", "mail server"
STREAM = "stream"


@dataclass(frozen=True, slots=True)
class Fault:
    """Begins ``pause`` seconds after its target has recovered from the one before, and lasts for
    ``seconds``; ``share`` is the part of requests that a service treats badly."""

    kind: FaultKind
    pause: float
    seconds: float
    share: float = 1.0


Schedule = dict[str, list[Fault]]  # by target


def schedule(seed: int, seconds: float, workers: int) -> Schedule:
    """Faults for about so many seconds. Every kind of a group comes before any comes again."""
    random = Random(seed)
    made: Schedule = {}

    def fill(targets: Sequence[str], kinds: Sequence[FaultKind], pause: Range) -> None:
        supply = _supply(random, kinds)
        at = dict.fromkeys(targets, 0.0)
        made.update({target: [] for target in targets})
        while True:
            target = min(at, key=at.__getitem__)
            fault = _fault(random, next(supply), pause)
            at[target] += fault.pause + fault.seconds + _RECOVERY.get(fault.kind, 0.0)
            if at[target] > seconds:
                return
            made[target].append(fault)

    names = [WORKER.format(number + 1) for number in range(workers)]
    fill(names, WORKER_KINDS, WORKER_PAUSE)
    joins = min(AT_MOST - workers, 1 if seconds < SHORT else AT_MOST)
    joining = [JOINING.format(number + 1) for number in range(joins)]
    if joining:
        fill(joining, JOIN_KINDS, (3.0, 20.0))
    fill([POSTGRES], POSTGRES_KINDS, (3.0, 15.0))
    fill([BROKER], BROKER_KINDS, (5.0, 18.0))
    fill([ORDERS], ORDER_KINDS, (1.0, 5.0))
    fill([MAIL], MAIL_KINDS, (3.0, 20.0))
    fill([STREAM], STREAM_KINDS, (5.0, 25.0))
    return made


def _supply(random: Random, kinds: Sequence[FaultKind]) -> Iterator[FaultKind]:
    while True:
        bag = list(kinds)
        random.shuffle(bag)
        yield from bag


def _fault(random: Random, kind: FaultKind, pause: Range) -> Fault:
    return Fault(
        kind,
        round(random.uniform(*pause), 1),
        round(random.uniform(*_SECONDS[kind]), 1),
        random.choice((0.2, 0.5, 1.0)),
    )
