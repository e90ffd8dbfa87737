"""What is broken when: the same for the same seed."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from random import Random

WARM_UP = 5.0  # seconds before the first fault
GAP = (2.0, 7.0)  # seconds between the beginnings of faults, which may overlap


class FaultKind(StrEnum):
    """What can be broken, in words for the person who reads along."""

    KILL = "worker killed"
    TERMINATE = "worker stopped by SIGTERM"
    FREEZE = "worker frozen"
    FORGET = "worker killed and its state directory deleted"
    JOIN = "another worker joins"
    POSTGRES_STOP = "PostgreSQL stopped"
    POSTGRES_CRASH = "PostgreSQL crashed"
    POSTGRES_DISCONNECT = "PostgreSQL connections terminated"
    BROKER = "broker stopped"
    ORDERS_REFUSE = "order service refuses"
    ORDERS_HANG = "order service hangs"
    ORDERS_LATE = "order service answers too late"
    ORDERS_CUT = "order service cuts connections"
    ORDERS_SLOW = "order service is slow"
    MAIL_REFUSE = "mail server refuses"
    MAIL_LATE = "mail server answers too late"


_SECONDS = {
    FaultKind.KILL: (0.2, 4.0),
    FaultKind.TERMINATE: (0.2, 4.0),
    FaultKind.FREEZE: (8.0, 13.0),  # beyond the session timeout
    FaultKind.FORGET: (0.2, 4.0),
    FaultKind.JOIN: (12.0, 25.0),
    FaultKind.POSTGRES_STOP: (2.0, 8.0),
    FaultKind.POSTGRES_CRASH: (0.0, 1.0),
    FaultKind.POSTGRES_DISCONNECT: (0.0, 0.0),
    FaultKind.BROKER: (0.5, 6.0),
}
_SERVICE_SECONDS = (3.0, 9.0)


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault that begins ``at`` and lasts for some ``seconds``; ``target`` chooses a worker,
    ``share`` the part of requests that a service treats badly."""

    at: float
    kind: FaultKind
    seconds: float
    target: int
    share: float


def schedule(seed: int, seconds: float) -> list[Fault]:
    """Faults for a run of so many seconds, each kind once before any comes again."""
    random = Random(seed)
    faults: list[Fault] = []
    bag: list[FaultKind] = []
    at = WARM_UP
    while at < seconds:
        if not bag:
            bag = list(FaultKind)
            random.shuffle(bag)
        kind = bag.pop()
        low, high = _SECONDS.get(kind, _SERVICE_SECONDS)
        share = random.choice((0.2, 0.5, 1.0))
        faults.append(Fault(at, kind, random.uniform(low, high), random.randrange(1000), share))
        at += random.uniform(*GAP)
    return faults
