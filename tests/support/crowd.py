"""Other clients, who take every connection that a server has."""

from __future__ import annotations

import asyncpg


class Crowd:
    """Comes and goes; must have gone before the server is stopped."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._connections: list[asyncpg.Connection[asyncpg.Record]] = []

    async def come(self) -> None:
        """Take all connections that are left."""
        while True:
            try:
                self._connections.append(await asyncpg.connect(self._dsn))
            except asyncpg.TooManyConnectionsError:
                return

    async def take_over(self) -> None:
        """End everybody else's connections and take them too, whoever else comes for them."""
        while True:
            ended = await self._connections[0].fetchval(
                "select count(pg_terminate_backend(pid)) from pg_stat_activity "
                "where backend_type = 'client backend' and not pid = any($1)",
                [connection.get_server_pid() for connection in self._connections],
            )
            if not ended:
                return
            await self.come()

    async def go(self) -> None:
        for connection in self._connections:
            await connection.close()
        self._connections.clear()
