"""Indexes by which what is old enough is found without a look at all the rest."""

from __future__ import annotations

from alembic import op

revision = "0005_purging"
down_revision = "0004_business_settings"

STATEMENTS: list[str] = [
    "create index outbox_published on outbox (published_at) where published_at is not null",
]


def upgrade() -> None:
    for statement in STATEMENTS:
        op.get_bind().exec_driver_sql(statement)
