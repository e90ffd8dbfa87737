"""The real client and executor of the order service, against a service that misbehaves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from pydantic import SecretStr

from streamapp.actions.base import Capabilities
from streamapp.actions.clients import Clients
from streamapp.actions.defaults import default_actions
from streamapp.actions.external import OrderService as Executor
from streamapp.actions.registry import ActionRegistry
from streamapp.saga.model import SagaState
from streamapp.services.http import HttpService
from tests.actions import building
from tests.faults.services.far import OrderService, serving
from tests.support.sagas import saga

TOKEN = "bearer-of-the-order-service"
TIMEOUT = 1.5  # seconds of one call
DEADLINE = 30.0  # seconds; reached only by a call that its own timeout does not end


@dataclass(frozen=True, slots=True)
class Near:
    """This side: the client, its executor and a registry with it."""

    http: HttpService
    executor: Executor
    registry: ActionRegistry

    def order(self, processing_id: str = "p-1", offset: int = 0) -> SagaState:
        """A new saga with the real plan of an order, of a lead of its own."""
        lead_id = f"lead of {processing_id}"
        about = replace(building.message(), processing_id=processing_id, lead_id=lead_id)
        state = saga(processing_id=processing_id, lead_id=lead_id, offset=offset)
        state.message = about
        state.plan = building.plan(
            self.registry,
            ["create_order"],
            about=about,
            capabilities=Capabilities(frozenset({"order"})),
        )
        return state


@asynccontextmanager
async def connected(url: str, timeout: float = TIMEOUT) -> AsyncIterator[Near]:
    http = HttpService("order", url, token=SecretStr(TOKEN), timeout=timeout)
    registry = default_actions(Clients(http={"order": http}, timeouts={"order": timeout}))
    executor = registry.executor("order_service", 1)
    assert isinstance(executor, Executor)
    try:
        yield Near(http, executor, registry)
    finally:
        await http.close()


@asynccontextmanager
async def both(service: OrderService, timeout: float = TIMEOUT) -> AsyncIterator[Near]:
    """The service served, and a client of it."""
    async with serving(service) as url, connected(url, timeout) as near:
        yield near
