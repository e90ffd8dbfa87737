"""What the database knows of a message that somebody asks about: read only, nothing is left."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from types import TracebackType

import orjson
from asyncpg import Record

from streamapp.businesses.business import Business, business_from
from streamapp.settings import Settings
from streamapp.storage.connection import Connection, connect
from streamapp.storage.tenants import tenant_of

_SAGA = """
SELECT status, run, topic, partition, "offset", payload_hash, earlier_hashes FROM sagas
WHERE processing_id = $1
"""


@dataclass(frozen=True, slots=True)
class KnownSaga:
    """A saga of the same id; ``payload_hashes`` are those that are its message's."""

    status: str
    run: int
    source: str
    payload_hashes: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Known:
    """``asked``: whether the database was; all else is what it answered."""

    asked: bool = False
    saga: KnownSaga | None = None
    business: Business | None = None
    tenant_id: str | None = None
    unknown_tenant: bool = False


class Knowledge:
    """A connection that cannot write, for one question after the other, from plain code.

    Every method raises ``faults.DATABASE_ERRORS``.
    """

    def __init__(self, settings: Settings, defaults: Business) -> None:
        self._settings = settings
        self._defaults = defaults
        self._runner = asyncio.Runner()
        self._connection: Connection | None = None

    def __enter__(self) -> Knowledge:
        self._runner.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._connection is not None:
            self._connection.terminate()
        self._runner.__exit__(kind, error, trace)

    def of(
        self,
        processing_id: str | None,
        lead_id: str | None,
        business_id: str | None,
        tenant_id: str | None,
    ) -> Known:
        """All that is known of a message; without a ``lead_id`` its tenant is not asked for."""
        return self._runner.run(self._of(processing_id, lead_id, business_id, tenant_id))

    async def _of(
        self,
        processing_id: str | None,
        lead_id: str | None,
        business_id: str | None,
        tenant_id: str | None,
    ) -> Known:
        if self._connection is None:
            self._connection = await connect(self._settings, "streamapp-explain")
        connection = self._connection
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            saga = await connection.fetchrow(_SAGA, processing_id)
            business = await connection.fetchrow(
                "SELECT settings FROM business_settings WHERE business_id = $1", business_id
            )
            owners = await connection.fetch(
                "SELECT business_id, tenant_id FROM leads WHERE lead_id = $1", lead_id
            )
        tenant = None
        if lead_id is not None and business_id is not None:
            pairs = [(row["business_id"], row["tenant_id"]) for row in owners]
            tenant = tenant_of(pairs, business_id, tenant_id)
        return Known(
            asked=True,
            saga=None if saga is None else _saga(saga),
            business=business_from(
                None if business is None else orjson.loads(business["settings"]),
                self._defaults.capabilities,
            ),
            tenant_id=tenant,
            unknown_tenant=lead_id is not None and tenant is None,
        )


def _saga(record: Record) -> KnownSaga:
    return KnownSaga(
        status=record["status"],
        run=record["run"],
        source=f"{record['topic']}:{record['partition']}:{record['offset']}",
        payload_hashes=(record["payload_hash"], *record["earlier_hashes"]),
    )
