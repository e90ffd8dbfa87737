"""What each business sets for itself: texts, channels, hours, names, services, switches."""

from __future__ import annotations

from alembic import op

revision = "0004_business_settings"
down_revision = "0003_deliveries"

STATEMENTS: list[str] = [
    # Never the same twice, also for a row that was deleted: who keeps settings compares it.
    "create sequence business_settings_revision",
    """
    create table business_settings (
        business_id text primary key,
        settings jsonb not null,
        revision bigint not null default nextval('business_settings_revision'),
        updated_at timestamptz not null default now(),
        updated_by text not null
    )
    """,
]


def upgrade() -> None:
    for statement in STATEMENTS:
        op.get_bind().exec_driver_sql(statement)
