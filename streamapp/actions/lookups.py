"""Look-ups: a question to a service, whose answer the saga keeps for the steps after it.

``POST {service}/lookups/{action}`` with the message's ids, what is asked for, and all entities. The
answer is any JSON object of at most ``MAX_ANSWER`` bytes. A 404 is an answer too: there is no such
thing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import orjson

from streamapp.actions.base import (
    CallContext,
    PlanningContext,
    StepContext,
    StepDraft,
)
from streamapp.actions.capabilities import CALENDAR, INVENTORY, ORDER, PRICING
from streamapp.actions.external import about_message, encode
from streamapp.actions.http_executor import NOT_FOUND, HttpExecutor
from streamapp.actions.kinds import HumanTask
from streamapp.intents.entities import amount, lookup
from streamapp.services.errors import Rejected
from streamapp.services.http import HttpRejected

MAX_ANSWER = 65_536  # bytes of JSON, since each later look at the saga reads it

_NUMBERS = frozenset({"quantity", "volume"})


class LookUp:
    """Asks the row's service; where it is not configured, a task asks the team. Best effort.

    Row: ``service``, ``fields`` (entities that the question is made of), and those of
    ``HumanTask``.
    """

    def expand(
        self, action: str, params: Mapping[str, Any], context: PlanningContext
    ) -> Sequence[StepDraft]:
        service = params["service"]
        if service not in context.capabilities.services:
            return HumanTask().expand(action, params, context)
        # Their values are the message's, stored beside the plan: an entity may be large.
        fields = {"fields": list(params["fields"])}
        return [StepDraft(f"{service}_lookup", "", fields, required=False)]


class LookUpExecutor(HttpExecutor):
    """Asks one service. It changes nothing there, so there is nothing to undo."""

    service: ClassVar[str]
    key_honoured = True  # a question has no effect to be doubled

    def describe(self, context: StepContext) -> str:
        return f"POST {self.service} /lookups/{context.step.action}"

    def request(self, context: StepContext) -> bytes:
        entities = context.message.entities
        question = {
            name: amount(lookup(entities, name)) if name in _NUMBERS else lookup(entities, name)
            for name in context.step.params["fields"]
        }
        return encode(about_message(context.message) | question | {"entities": entities})

    async def call(self, request: bytes, context: CallContext) -> dict[str, Any]:
        """The answer. Raises ``Rejected`` for one that is too long to be kept."""
        path = f"/lookups/{context.step.step.action}"
        try:
            answer = await self.client(context).post(path, request, key=context.key)
        except HttpRejected as error:
            if error.status == NOT_FOUND:
                return {"found": False}
            raise
        if len(orjson.dumps(answer)) > MAX_ANSWER:
            raise Rejected(f"{self.service}: the answer is longer than {MAX_ANSWER} bytes")
        return answer


class OrderLookUp(LookUpExecutor):
    """Questions to the order service."""

    name = "order_lookup"
    service = ORDER


class InventoryLookUp(LookUpExecutor):
    """Questions to the inventory service."""

    name = "inventory_lookup"
    service = INVENTORY


class PricingLookUp(LookUpExecutor):
    """Questions to the pricing service."""

    name = "pricing_lookup"
    service = PRICING


class CalendarLookUp(LookUpExecutor):
    """Questions to the calendar service."""

    name = "calendar_lookup"
    service = CALENDAR


LOOK_UPS: tuple[type[LookUpExecutor], ...] = (
    OrderLookUp,
    InventoryLookUp,
    PricingLookUp,
    CalendarLookUp,
)
