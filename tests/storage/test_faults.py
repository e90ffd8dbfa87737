"""Only a row's own content is its fault."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest

from streamapp.storage.faults import DATABASE_ERRORS, Fault, fault_of
from tests.support.bench import Bench


def server_error(state: str) -> asyncpg.PostgresError:
    """The error that asyncpg raises for a SQLSTATE, also for one it does not know."""
    found = asyncpg.PostgresError.new({"C": state, "M": "message", "S": "ERROR"})
    assert isinstance(found, asyncpg.PostgresError)
    assert found.sqlstate == state
    return found


@pytest.mark.parametrize(
    ("state", "fault"),
    [
        ("22000", Fault.ROW),
        ("22001", Fault.ROW),  # string too long
        ("22003", Fault.ROW),  # number out of range
        ("22021", Fault.ROW),  # character not in repertoire
        ("22P05", Fault.ROW),  # untranslatable character
        ("23502", Fault.ROW),  # not null
        ("23503", Fault.ROW),  # foreign key
        ("23505", Fault.ROW),  # unique
        ("23514", Fault.ROW),  # check
        ("54000", Fault.ROW),  # too large for an index
        ("40001", Fault.LOCK),  # serialization
        ("40P01", Fault.LOCK),  # deadlock
        ("55P03", Fault.LOCK),  # lock not available
        ("57014", Fault.LOCK),  # statement timeout
        ("08000", Fault.OUTAGE),
        ("08006", Fault.OUTAGE),  # connection failure
        ("0A000", Fault.OUTAGE),  # feature not supported
        ("25006", Fault.OUTAGE),  # read only: a standby
        ("25P03", Fault.OUTAGE),  # idle in transaction
        ("28P01", Fault.OUTAGE),  # password
        ("3D000", Fault.OUTAGE),  # no such database
        ("42501", Fault.LOCK),  # rights, perhaps to this row only
        ("42804", Fault.LOCK),  # type that some statement only meets
        ("P0001", Fault.LOCK),  # a trigger objects
        ("44000", Fault.LOCK),
        ("42703", Fault.OUTAGE),  # no such column
        ("42P01", Fault.OUTAGE),  # no such table
        ("53100", Fault.OUTAGE),  # disk full
        ("53300", Fault.OUTAGE),  # too many connections
        ("55000", Fault.OUTAGE),
        ("55006", Fault.OUTAGE),  # object in use
        ("57P01", Fault.OUTAGE),  # admin shutdown
        ("57P03", Fault.OUTAGE),  # cannot connect now
        ("58030", Fault.OUTAGE),  # I/O
        ("XX000", Fault.OUTAGE),
        ("XX001", Fault.LOCK),  # data corrupted: a page, so some rows only
        ("XX002", Fault.LOCK),  # index corrupted
        ("26000", Fault.OUTAGE),  # the session lost its prepared statements
        ("3F000", Fault.OUTAGE),  # no such schema
        ("53200", Fault.OUTAGE),  # out of memory
        ("57P05", Fault.OUTAGE),  # idle session
        ("25P04", Fault.OUTAGE),  # transaction timeout
        ("40003", Fault.LOCK),  # completion unknown
        ("ZZ999", Fault.LOCK),
    ],
)
def test_server_errors(state: str, fault: Fault) -> None:
    assert fault_of(server_error(state)) is fault


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (OSError(), Fault.OUTAGE),
        (ConnectionResetError(), Fault.OUTAGE),
        (asyncio.IncompleteReadError(b"", 1), Fault.OUTAGE),
        (TimeoutError(), Fault.OUTAGE),
        (asyncpg.InterfaceError("connection is closed"), Fault.OUTAGE),
        (asyncpg.InternalClientError("unexpected"), Fault.OUTAGE),
        (asyncpg.ConnectionDoesNotExistError("gone"), Fault.OUTAGE),
        (asyncpg.ClientConfigurationError("no such certificate"), Fault.OUTAGE),
        (ValueError(), None),
        (TypeError(), None),
        (KeyError("a"), None),
        (RuntimeError(), None),
    ],
)
def test_errors_of_the_client(error: BaseException, fault: Fault | None) -> None:
    assert fault_of(error) is fault
    assert isinstance(error, DATABASE_ERRORS) == (fault is not None)


@pytest.mark.parametrize(
    ("sql", "value"),
    [("select $1::int", "text"), ("select $1::int", 2**40), ("select $1::text", 5)],
)
async def test_a_value_that_the_client_cannot_encode_is_its_rows_fault(
    bench: Bench, sql: str, value: Any
) -> None:
    with pytest.raises(DATABASE_ERRORS, match="invalid input") as caught:
        await bench.pool.fetchval(sql, value)
    assert fault_of(caught.value) is Fault.ROW
