"""A service to be called by actions under test. It keeps keys, as real ones should."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import web

KEY = "Idempotency-Key"


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as it arrived; ``what`` is method and path, a key within it as ``{key}``."""

    what: str
    key: str
    body: bytes


class FarSide:
    """Carries out what it is asked, once for each idempotency key.

    ``POST .../{key}/cancel`` and ``DELETE .../{key}`` undo what came under that key; 404 where
    nothing did, and 410 for what comes under it later. ``answers`` holds, by method and path, what
    is answered next instead: statuses with bodies, and nothing is carried out. Those in ``always``
    are answered so every time. ``cut`` names requests that are carried out and whose answer is
    lost, once for each time that it stands there.
    """

    def __init__(self) -> None:
        self.url = ""
        self.asked: list[Asked] = []
        self.answers: dict[str, list[tuple[int, dict[str, Any]]]] = {}
        self.always: dict[str, tuple[int, dict[str, Any]]] = {}
        self.cut: list[str] = []
        self.keyless: list[str] = []
        self._done: dict[str, dict[str, Any]] = {}
        self._undone: set[str] = set()
        self._bodies: dict[tuple[str, str], set[bytes]] = {}

    @property
    def in_effect(self) -> int:
        """How many effects there are now: those done and not undone."""
        return len(self._done.keys() - self._undone)

    def names(self) -> list[str]:
        """What was asked, in order."""
        return [request.what for request in self.asked]

    def check(self) -> None:
        """Fails for a request without a key, and for one that was repeated with other bytes."""
        assert not self.keyless, f"without an {KEY}: {self.keyless}"
        differing = [what for (what, _), bodies in self._bodies.items() if len(bodies) > 1]
        assert not differing, f"repeated under the same key with another body: {differing}"

    async def _handle(self, request: web.Request) -> web.Response:
        body, key = await request.read(), request.headers.get(KEY, "")
        undoes = _undone_by(request.method, request.path)
        path = request.path if undoes is None else request.path.replace(undoes, "{key}")
        what = f"{request.method} {path}"
        self.asked.append(Asked(what, key, body))
        if not key:
            self.keyless.append(what)
            return web.json_response({"error": f"there is no {KEY}"}, status=400)
        self._bodies.setdefault((what, key), set()).add(body)
        if what in self.cut:
            self.cut.remove(what)
            self._act(key, undoes)
            assert request.transport is not None
            request.transport.close()
            return web.Response()
        scripted = self.answers.get(what)
        answer = scripted.pop(0) if scripted else self.always.get(what)
        if answer is not None:
            return web.json_response(answer[1], status=answer[0])
        return self._act(key, undoes)

    def _act(self, key: str, undoes: str | None) -> web.Response:
        return self._carry_out(key) if undoes is None else self._undo(undoes)

    def _carry_out(self, key: str) -> web.Response:
        if key in self._undone:
            return web.json_response({"error": "it was undone before"}, status=410)
        answer = self._done.setdefault(key, {"id": str(len(self._done) + 1)})
        return web.json_response(answer)

    def _undo(self, key: str) -> web.Response:
        self._undone.add(key)
        if key not in self._done:
            return web.json_response({"error": "nothing came under this key"}, status=404)
        return web.json_response({"undone": True})


def _undone_by(method: str, path: str) -> str | None:
    """The key in the path of a request that undoes something."""
    parts = path.split("/")
    if method == "DELETE":
        return parts[-1]
    return parts[-2] if parts[-1] == "cancel" and len(parts) > 2 else None


@asynccontextmanager
async def far_side() -> AsyncIterator[FarSide]:
    """A far side that listens on 127.0.0.1."""
    far = FarSide()
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", far._handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        far.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield far
    finally:
        await runner.cleanup()
