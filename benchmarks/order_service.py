"""An order service that takes its time: ``python -m benchmarks.order_service SECONDS``.

Prints its address. An order waits for that time, or for the ``wait_seconds`` among its entities.
It creates an order once by its key and refuses that of one product.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter

import orjson
from aiohttp import web

from benchmarks.messages import REFUSED


class OrderService:
    """``delay`` in seconds."""

    def __init__(self, delay: float) -> None:
        self._delay = delay
        self._keys: set[str] = set()
        self._counts: Counter[str] = Counter()

    async def create(self, http: web.Request) -> web.Response:
        order = orjson.loads(await http.read())
        await asyncio.sleep(order["entities"].get("wait_seconds", self._delay))
        if order["product"] == REFUSED:
            self._counts["refused"] += 1
            return web.json_response({"error": "no longer made"}, status=422)
        key = http.headers["Idempotency-Key"]
        self._counts["repeated" if key in self._keys else "created"] += 1
        self._keys.add(key)
        return web.json_response({"order_id": f"order-{key}"})

    async def cancel(self, _: web.Request) -> web.Response:
        self._counts["cancelled"] += 1
        return web.json_response({"cancelled": True})

    async def take_counts(self, _: web.Request) -> web.Response:
        counts = dict(self._counts)
        self._counts.clear()
        self._keys.clear()
        return web.json_response(counts)


async def serve(delay: float) -> None:
    service = OrderService(delay)
    app = web.Application()
    app.router.add_post("/orders", service.create)
    app.router.add_post("/orders/{key}/cancel", service.cancel)
    app.router.add_post("/take-counts", service.take_counts)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    print(f"http://{host}:{port}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(float(sys.argv[1])))
