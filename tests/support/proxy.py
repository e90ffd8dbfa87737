"""A TCP proxy in front of PostgreSQL that fails on demand, where a real network would."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import Enum
from urllib.parse import urlsplit, urlunsplit

_CHUNK = 64 * 1024  # bytes; a statement of a few characters always fits one


class AtCommit(Enum):
    """What the proxy does to the connection on which the next COMMIT comes."""

    FORWARD = "forward"
    LOSE_REQUEST = "lose request"  # the server never sees it and rolls back
    LOSE_REPLY = "lose reply"  # the server commits, the client never hears of it
    HOLD = "hold"  # the server waits for it, as for a client that is frozen


class Proxy:
    """Forwards to the server of ``dsn``; ``self.dsn`` leads through the proxy."""

    def __init__(self, dsn: str) -> None:
        self._upstream = urlsplit(dsn)
        self._server: asyncio.Server | None = None
        self._links: dict[asyncio.StreamWriter, asyncio.StreamWriter] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._refusing = False
        self._silent: set[asyncio.StreamWriter] = set()
        self.refuse_after_loss = False  # the database stays away after a lost COMMIT
        self.at_commit = AtCommit.FORWARD
        self.latency = 0.0  # seconds that each piece of a reply takes longer
        self.held = 0  # COMMITs that were held back
        self.refused = 0  # connections turned away
        self.lost = 0  # COMMITs whose outcome the client was not told

    @property
    def dsn(self) -> str:
        assert self._server is not None
        port = self._server.sockets[0].getsockname()[1]
        user, _, _ = self._upstream.netloc.rpartition("@")
        return urlunsplit(self._upstream._replace(netloc=f"{user}@127.0.0.1:{port}"))

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def cut(self) -> None:
        """Break all connections as a reset does."""
        for client, server in self._links.items():
            client.transport.abort()
            server.transport.abort()
        self._links.clear()

    def refuse(self) -> None:
        """The database is away: connections break and new ones are turned away."""
        self._refusing = True
        self.cut()

    def silence(self) -> None:
        """The connections that are open now stay open and carry nothing any more, as when a
        server vanishes from the network without a word. New ones are as good as ever."""
        self._silent.update(self._links)

    def lead_to(self, dsn: str) -> None:
        """New connections go to another server; those that are open stay where they are."""
        self._upstream = urlsplit(dsn)

    def accept(self) -> None:
        """The database is back."""
        self._refusing = False

    async def _accept(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        if self._refusing:
            self.refused += 1
            client.transport.abort()
            return
        try:
            upstream, server = await asyncio.open_connection(
                self._upstream.hostname, self._upstream.port
            )
        except OSError:
            client.transport.abort()
            return
        self._links[client] = server
        lose_reply = asyncio.Event()
        for pump in (
            self._to_server(reader, client, server, lose_reply),
            self._to_client(upstream, client, server, lose_reply),
        ):
            task = asyncio.create_task(pump)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _to_server(
        self,
        source: asyncio.StreamReader,
        client: asyncio.StreamWriter,
        server: asyncio.StreamWriter,
        lose_reply: asyncio.Event,
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(_CHUNK):
                if self.at_commit is not AtCommit.FORWARD and b"COMMIT;\0" in data:
                    at_commit, self.at_commit = self.at_commit, AtCommit.FORWARD
                    if at_commit is AtCommit.LOSE_REQUEST:
                        self._lose()
                        break
                    if at_commit is AtCommit.HOLD:
                        self.held += 1
                        continue
                    lose_reply.set()
                if client in self._silent:
                    continue
                server.write(data)
                await server.drain()
        self._break(client)

    async def _to_client(
        self,
        source: asyncio.StreamReader,
        client: asyncio.StreamWriter,
        server: asyncio.StreamWriter,
        lose_reply: asyncio.Event,
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(_CHUNK):
                if lose_reply.is_set():
                    assert b"COMMIT\0" in data, "the server did not commit"
                    self._lose()
                    break
                if self.latency:
                    await asyncio.sleep(self.latency)
                if client in self._silent:
                    continue
                client.write(data)
                await client.drain()
        self._break(client)

    def _lose(self) -> None:
        self.lost += 1
        if self.refuse_after_loss:
            self._refusing = True

    def _break(self, client: asyncio.StreamWriter) -> None:
        client.transport.abort()
        self._silent.discard(client)
        server = self._links.pop(client, None)
        if server is not None:
            server.transport.abort()


@asynccontextmanager
async def proxy_to(dsn: str) -> AsyncIterator[Proxy]:
    """A running proxy to the server of ``dsn``."""
    proxy = Proxy(dsn)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.stop()
