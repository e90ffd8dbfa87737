"""An order service that is out of order until it is told to work, and does each order once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web


class Orders:
    """``requests`` has (key, body) of each; ``made`` the keys of the orders."""

    def __init__(self) -> None:
        self.works = True
        self.requests: list[tuple[str, bytes]] = []
        self.made: list[str] = []
        self.url = ""

    async def create(self, request: web.Request) -> web.Response:
        key = request.headers["Idempotency-Key"]
        self.requests.append((key, await request.read()))
        if not self.works:
            return web.json_response({"error": "out of order"}, status=503)
        if key not in self.made:
            self.made.append(key)
        return web.json_response({"order_id": f"order-{key}"})


@asynccontextmanager
async def serving() -> AsyncIterator[Orders]:
    orders = Orders()
    app = web.Application()
    app.router.add_post("/orders", orders.create)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    orders.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield orders
    finally:
        await runner.cleanup()
