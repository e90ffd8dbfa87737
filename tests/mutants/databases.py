"""PostgreSQL for many short runs of pytest: started and migrated once, not by each of them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from streamapp.demo.guardian import Guardian
from streamapp.demo.postgres import EmbeddedPostgres
from streamapp.testing.databases import create_template
from tests.conftest import SERVER


@contextmanager
def servers(count: int) -> Iterator[list[Mapping[str, str]]]:
    """As many servers; gives what the environment of their users has to say."""
    with Guardian() as guardian:
        environments: list[Mapping[str, str]] = []
        for number in range(count):
            server = EmbeddedPostgres(guardian, f"postgres-{number}")
            dsn = server.start()
            asyncio.run(create_template(dsn))
            environments.append({SERVER: dsn})
        yield environments
