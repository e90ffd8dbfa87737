"""What the pipeline needs from the outside: implemented by the worker, or by a test."""

from __future__ import annotations

from typing import Protocol

from streamapp.businesses.business import Business
from streamapp.pipeline.outcomes import Outcome, Record
from streamapp.saga.model import Message


class Seen(Protocol):
    """The fast path of deduplication: what the local table knows. PostgreSQL is the truth."""

    def look_up(self, partition: int, processing_id: str) -> bytes | None:
        """The payload hash of a message that was finished within the window, if known."""


class Tenants(Protocol):
    """Who a lead belongs to."""

    async def resolve(self, lead_id: str, business_id: str, tenant_id: str | None) -> str | None:
        """The message's tenant; None when unknown, or when the lead is another tenant's.

        Waits while the database is away.
        """


class Businesses(Protocol):
    """What the business of a message sets for itself."""

    async def find(self, business_id: str) -> Business:
        """The business as it stands. Waits while the database is away."""


class DeadLetterSink(Protocol):
    """Takes dead letters from before a saga."""

    async def publish(self, record: Record) -> None:
        """Returns once the letter is durable, however long the broker is away."""


class PipelineObserver(Protocol):
    """Metrics and logs of the pipeline. Implementations return at once and never raise."""

    def received(self, source: str, business_id: str) -> None: ...

    def looked_up(self, tier: str, result: str) -> None: ...

    def understood(self, message: Message, ai_seconds: float | None) -> None: ...

    def dead_lettered(self, reason: str) -> None: ...

    def delivered(self, outcome: Outcome, source: str, seconds: float) -> None: ...

    def defect(self, where: str, error: BaseException) -> None: ...
