"""What the saga asks of its journal. ``storage.journal`` is the PostgreSQL one."""

from __future__ import annotations

from dataclasses import field
from typing import Any, Protocol

from streamapp.saga.model import SagaState, SagaWrite
from streamapp.values import value


@value
class Written:
    """A write that is durable.

    ``existing`` is set when a claim found its saga there already: then nothing was written.
    ``outputs`` holds what the database answered to operations, by step ordinal. ``at`` is the
    monotonic time in seconds just before the COMMIT, 0 when that is not known: then a call to
    the outside that relies on it is too late to begin.
    """

    existing: SagaState | None = None
    outputs: dict[int, dict[str, Any]] = field(default_factory=dict)
    at: float = 0.0


class Journal(Protocol):
    """The one way into the saga's tables.

    Both calls wait for a database that is away, however long. ``write`` returns once the write is
    durable. It raises ``Fenced`` when the partition has another owner, or the saga or the request
    is not where the write expects it, and ``WriteRefused`` when the content is at fault; in all
    cases nothing was written.
    """

    async def write(self, write: SagaWrite) -> Written: ...

    async def load(self, processing_id: str) -> SagaState | None: ...
