"""Bringing a PostgreSQL back that ended badly."""

from __future__ import annotations

import time

from streamapp.demo.postgres import EmbeddedPostgres, PostgresError

START_WITHIN = 60.0  # seconds


def start_again(server: EmbeddedPostgres) -> None:
    """Start it, unless it runs. Backends may end a moment after a server that was killed, and the
    next one waits for that."""
    deadline = time.monotonic() + START_WITHIN
    while True:
        try:
            server.start()
        except PostgresError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return
