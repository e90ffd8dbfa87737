"""The two actions of the loyalty programme."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from streamapp.actions.base import CallContext, PlanningContext, StepContext, StepDraft
from streamapp.actions.extension import ExternalAction, OwnAction, task_for
from streamapp.saga.ids import row_id
from streamapp.saga.operations import InsertActivity, Operation
from streamapp.services.errors import NothingThere
from streamapp.services.http import HttpRejected, HttpService


class NoteReward(OwnAction):
    """A row in the lead's history. History stays, so there is nothing to undo."""

    name = "note_reward"

    def operations(self, context: StepContext) -> Sequence[Operation]:
        row = row_id("activity", context.message.processing_id, context.run, self.name)
        asked = {"entities": context.message.entities}
        return (
            InsertActivity(row, "reward_requested", "The customer wants a reward", metadata=asked),
        )

    def compensation(self, context: StepContext, output: Mapping[str, Any]) -> Sequence[Operation]:
        return ()


class RedeemPoints(ExternalAction):
    """Takes points off a card at the loyalty service (``LOYALTY_SERVICE_URL``); undone by giving
    them back under the key of the redemption. Without the service a person does it."""

    name = "redeem_points"
    service = "loyalty"  # its circuit
    key_honoured = True  # a redemption under the same key is the same redemption
    compensable = True
    max_call_time = 12.0  # the client's ten seconds, and two until a call begins

    def __init__(self, url: str | None = None) -> None:
        url = url or os.environ.get("LOYALTY_SERVICE_URL")
        self._http = HttpService(self.service, url) if url else None

    def steps(self, context: PlanningContext) -> Sequence[StepDraft]:
        if self._http is None:
            return (task_for("sales_team", "Take the points off the card.", self.name, context),)
        return super().steps(context)

    def params(self, context: PlanningContext) -> dict[str, Any]:
        return {name: context.metadata.get(name) for name in ("card_number", "points")}

    def request(self, context: StepContext) -> bytes:
        return json.dumps(context.step.params).encode()

    async def call(self, request: bytes, context: CallContext) -> dict[str, Any]:
        return await self._client().post("/redemptions", request, key=context.key)

    def compensation_request(
        self, context: StepContext, forward_key: str, output: Mapping[str, Any] | None
    ) -> bytes:
        return json.dumps({"redemption": forward_key}).encode()

    async def compensate(self, request: bytes, context: CallContext) -> dict[str, Any]:
        path = f"/redemptions/{json.loads(request)['redemption']}/cancel"
        try:
            return await self._client().post(path, request, key=context.key)
        except HttpRejected as error:
            if error.status == 404:
                raise NothingThere(str(error)) from error
            raise

    async def close(self) -> None:
        if self._http is not None:
            await self._http.close()

    def _client(self) -> HttpService:
        """A step of a worker that has the service, carried out by one that has not: tried again."""
        if self._http is None:
            raise LookupError("LOYALTY_SERVICE_URL is not set")
        return self._http
