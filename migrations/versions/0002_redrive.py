"""Redrive of dead letters, and people's requests on stuck sagas."""

from __future__ import annotations

from alembic import op

revision = "0002_redrive"
down_revision = "0001_initial"

STATEMENTS: list[str] = [
    "alter table sagas drop constraint sagas_status_check",
    """
    alter table sagas add constraint sagas_status_check check (
        status in ('RUNNING', 'COMPENSATING', 'COMPLETED', 'COMPENSATED', 'STUCK', 'RESOLVED')
    )
    """,
    # Of earlier runs, where a redrive's payload was edited: each is a payload of this message.
    "alter table sagas add column earlier_hashes bytea[] not null default '{}'",
    # Ids of the redrives that repeated the step, the last one last.
    "alter table saga_steps add column redrives jsonb not null default '[]'",
    """
    alter table dead_letter_queue
        add column has_saga boolean not null default false,
        add column settled_at timestamptz
    """,
    # Letters that a saga left: by their reason, or because no code of ours raised.
    """
    update dead_letter_queue set has_saga = true
    where run > 0 or action <> ''
        or reason not in ('invalid_payload', 'unknown_tenant', 'payload_mismatch', 'handler_error')
        or headers @> '[["__streamapp.errors.exception", "c2FnYQ=="]]'
    """,
    """
    create table saga_requests (
        request_id bigint generated always as identity primary key,
        processing_id text not null,
        kind text not null check (kind in ('resume', 'resolve')),
        reason text,
        actor text not null,
        requested_at timestamptz not null default now(),
        carried_out_at timestamptz,
        result text
    )
    """,
    # One open request of a kind: who asks again meanwhile is given the same one.
    """
    create unique index saga_requests_open on saga_requests (processing_id, kind)
        where carried_out_at is null
    """,
    "create index saga_requests_saga on saga_requests (processing_id, request_id)",
    """
    insert into saga_requests (processing_id, kind, actor, requested_at)
    select processing_id, 'resume', 'unknown', resume_requested_at from sagas
    where resume_requested_at is not null
    """,
    "alter table sagas drop column resume_requested_at",
]


def upgrade() -> None:
    for statement in STATEMENTS:
        op.get_bind().exec_driver_sql(statement)
