"""What became of each reply on its way to the customer."""

from __future__ import annotations

from alembic import op

revision = "0003_deliveries"
down_revision = "0002_redrive"

STATEMENTS: list[str] = [
    # attempts counts requests that may have been sent or were refused; attempts_before are those
    # before a person asked for another. claim names the attempt that is, or was last, under way.
    """
    create table outbound_deliveries (
        message_id text primary key,
        consumer_group text not null,
        lead_id text not null,
        business_id text not null,
        tenant_id text not null,
        recipient text not null,
        body text not null,
        in_reply_to text,
        created_at timestamptz not null,
        status text not null check (status in (
            'pending', 'sending', 'unknown', 'sent', 'failed', 'delivered', 'read'
        )),
        reason text,
        error_code int,
        error text,
        attempts int not null default 0,
        attempts_before int not null default 0,
        claim uuid,
        whatsapp_message_id text,
        received_at timestamptz not null default now(),
        due_at timestamptz,
        sending_at timestamptz,
        finished_at timestamptz,
        retried_at timestamptz,
        status_at timestamptz,
        updated_at timestamptz not null default now()
    )
    """,
    "create index outbound_deliveries_status on outbound_deliveries (status, updated_at)",
    "create index outbound_deliveries_lead on outbound_deliveries (lead_id, received_at)",
    """
    create index outbound_deliveries_whatsapp on outbound_deliveries (whatsapp_message_id)
        where whatsapp_message_id is not null
    """,
    "create index outbound_deliveries_finished on outbound_deliveries (finished_at)",
]


def upgrade() -> None:
    for statement in STATEMENTS:
        op.get_bind().exec_driver_sql(statement)
