"""Runs revisions on the connection that ``streamapp.storage.migrations`` hands over.

That connection holds the advisory lock and an open transaction: all pending revisions are
applied, or none.
"""

from __future__ import annotations

from alembic import context

from streamapp.storage.migrations import VERSION_TABLE

connection = context.config.attributes.get("connection")
if connection is None:
    raise SystemExit("run `streamapp migrate`: it takes the lock that makes this safe")

context.configure(connection=connection, version_table=VERSION_TABLE)
with context.begin_transaction():
    context.run_migrations()
