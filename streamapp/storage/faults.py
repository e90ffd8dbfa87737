"""Whose fault a database error is (protocol, 9)."""

from __future__ import annotations

import asyncio
from enum import Enum

import asyncpg


class Fault(Enum):
    """What an error calls for."""

    ROW = "row"  # the content of one write: find it, fail it alone
    LOCK = "lock"  # a lock, a conflict, or what else may pass: repeat, apart from the others
    OUTAGE = "outage"  # the database: wait, nobody is to blame


# The database itself, or what an operator has to put right for everybody (42: a missing table).
# 26: the session has lost its prepared statements, as behind a pooler; a new one makes its own.
_OUTAGE_CLASSES = (
    "08",
    "0A",
    "25",
    "26",
    "28",
    "3D",
    "3F",
    "42",
    "53",
    "55",
    "57",
    "58",
    "F0",
    "XX",
)
# 55P03: lock timeout, 57014: statement timeout, 42501: a right that may depend on the row, 42804: a
# type that only some statement meets, XX001 and XX002: a broken page, which has some rows only.
# Repeating may help, but must not hold up the neighbours.
_LOCK_STATES = ("55P03", "57014", "42501", "42804", "XX001", "XX002")
# 22: data exception, 23: constraint violation, 54: program limit, met by a value that is too
# large for an index or for jsonb. It would be refused for ever, and hold up everything with it.
_ROW_CLASSES = ("22", "23", "54")

# asyncpg.InternalClientError was seen when a server vanished in the middle of a reply.
CONNECTION_ERRORS: tuple[type[BaseException], ...] = (
    OSError,
    EOFError,
    asyncio.TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)
DATABASE_ERRORS: tuple[type[BaseException], ...] = (*CONNECTION_ERRORS, asyncpg.PostgresError)


def fault_of(error: BaseException) -> Fault | None:
    """Classify an error; None for one that is no database's (a defect of ours).

    Only classes 22, 23 and 54 are a row's fault. What speaks of the database is an outage:
    waiting loses nothing and shows in readiness. All else (a trigger that objects, a deadlock) is
    repeated apart from the others, so that one row can stop no other.
    """
    if isinstance(error, asyncpg.PostgresError):
        # What asyncpg itself could not encode has SQLSTATE 22000.
        state = error.sqlstate or ""
        if state.startswith(_ROW_CLASSES):
            return Fault.ROW
        if state.startswith(_OUTAGE_CLASSES) and state not in _LOCK_STATES:
            return Fault.OUTAGE
        return Fault.LOCK
    if isinstance(error, CONNECTION_ERRORS):
        return Fault.OUTAGE
    return None
