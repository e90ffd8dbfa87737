"""The services that businesses have set for themselves: a client for each, made on first use."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping

from pydantic import SecretStr

from streamapp.services.http import HttpService
from streamapp.storage.business_directory import BusinessDirectory

LIMIT = 256  # clients kept; those used longest ago are closed

_Key = tuple[str, str, str | None]


class BusinessServices:
    """Implements ``actions.clients.OwnServices``. ``timeouts`` are the limits of one call in
    seconds, by service; ``directory`` gives the businesses once the worker has started."""

    def __init__(
        self, directory: Callable[[], BusinessDirectory], timeouts: Mapping[str, float]
    ) -> None:
        self._directory = directory
        self._timeouts = timeouts
        self._clients: OrderedDict[_Key, HttpService] = OrderedDict()
        self._closing: set[asyncio.Task[None]] = set()

    async def known(self, business_id: str) -> None:
        await self._directory().find(business_id)

    def http(self, service: str, business_id: str) -> HttpService | None:
        own = self._directory().at_hand(business_id).services.get(service)
        if own is None:
            return None
        # An address that was changed is another client.
        token = None if own.token is None else own.token.get_secret_value()
        key = (service, own.url, token)
        client = self._clients.get(key)
        if client is None:
            timeout = self._timeouts[service]
            client = HttpService(service, own.url, token=own.token, timeout=timeout)
            self._clients[key] = client
            if len(self._clients) > LIMIT:
                _, oldest = self._clients.popitem(last=False)
                task = asyncio.create_task(_close_later(oldest, timeout))
                self._closing.add(task)
                task.add_done_callback(self._closing.discard)
        self._clients.move_to_end(key)
        return client

    def webhook(self, team: str, business_id: str) -> SecretStr | None:
        return self._directory().at_hand(business_id).webhooks.get(team)

    async def close(self) -> None:
        for task in self._closing:
            task.cancel()
        for client in self._clients.values():
            await client.close()


async def _close_later(client: HttpService, timeout: float) -> None:
    """Its calls under way come to their end before."""
    try:
        await asyncio.sleep(2 * timeout)
    finally:
        await client.close()
