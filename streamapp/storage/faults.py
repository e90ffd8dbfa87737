"""Whose fault a database error is (protocol, 9)."""

from __future__ import annotations

import asyncio
from enum import Enum

import asyncpg


class Fault(Enum):
    """What an error calls for."""

    ROW = "row"  # the content of one write: find it, fail it alone
    LOCK = "lock"  # a lock or a conflict with another transaction: repeat, apart
    OUTAGE = "outage"  # the database: wait, nobody is to blame


# 40: transaction rollback (serialisation, deadlock), 55P03: lock timeout, 57014: statement
# timeout. Repeating helps, but the write should not hold up its neighbours meanwhile.
_LOCK_STATES = ("40", "55P03", "57014")
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

    Only classes 22, 23 and 54 are a row's fault. All other states count as an outage, also those
    of class 42 (a missing table or right): waiting loses nothing and shows in readiness, while
    failing messages for it would blame them for an operator's work.
    """
    if isinstance(error, asyncpg.PostgresError):
        # What asyncpg itself could not encode has SQLSTATE 22000.
        state = error.sqlstate or ""
        if state.startswith(_ROW_CLASSES):
            return Fault.ROW
        if state.startswith(_LOCK_STATES):
            return Fault.LOCK
        return Fault.OUTAGE
    if isinstance(error, CONNECTION_ERRORS):
        return Fault.OUTAGE
    return None
