"""Everything streamapp keeps: journal, outbox, dead letters, tasks, audit.

``leads`` and ``lead_activities`` belong to the CRM and are created only where they are absent.
"""

from __future__ import annotations

from alembic import op

revision = "0001_initial"
down_revision = None

STATEMENTS: list[str] = [
    """
    create table partition_owners (
        consumer_group text,
        topic text,
        partition int,
        epoch bigint not null,
        worker text,
        since timestamptz not null default now(),
        primary key (consumer_group, topic, partition)
    )
    """,
    """
    create table sagas (
        processing_id text primary key,
        run int not null,
        status text not null check (
            status in ('RUNNING', 'COMPENSATING', 'COMPLETED', 'COMPENSATED', 'STUCK')
        ),
        consumer_group text,
        topic text,
        partition int,
        "offset" bigint,
        record_timestamp_ms bigint,
        epoch bigint,
        payload_hash bytea,
        lead_id text,
        business_id text,
        tenant_id text,
        intent text,
        confidence double precision,
        handler text,
        escalate boolean,
        message jsonb,
        plan jsonb,
        original_key bytea,
        original_value bytea,
        headers jsonb,
        reason text,
        error text,
        write_id uuid,
        stuck_retries int not null default 0,
        resume_at timestamptz,
        resume_requested_at timestamptz,
        created_at timestamptz not null default now(),
        updated_at timestamptz not null default now(),
        finished_at timestamptz
    )
    """,
    """
    create index sagas_unfinished on sagas (consumer_group, topic, partition)
        where status in ('RUNNING', 'COMPENSATING', 'STUCK')
    """,
    "create index sagas_status on sagas (status, updated_at)",
    "create index sagas_lead on sagas (lead_id)",
    # No foreign key: steps are written in the batch that writes their saga, and purged with it.
    """
    create table saga_steps (
        processing_id text,
        run int,
        ordinal int,
        direction text check (direction in ('forward', 'compensate')),
        action text,
        sub_step text,
        status text not null check (status in ('STARTED', 'WAITING', 'DONE', 'FAILED')),
        key text,
        attempts int not null default 0,
        in_doubt boolean not null default false,
        circuit_wait double precision not null default 0,
        due_at timestamptz,
        request bytea,
        output jsonb,
        error text,
        first_attempt_at timestamptz,
        last_attempt_at timestamptz,
        finished_at timestamptz,
        primary key (processing_id, run, ordinal, direction)
    )
    """,
    """
    create table outbox (
        id bigint generated always as identity primary key,
        record_id text not null unique,
        consumer_group text,
        source_topic text,
        source_partition int,
        topic text not null,
        key bytea,
        value bytea,
        headers jsonb,
        lead_id text,
        created_at timestamptz not null default now(),
        published_at timestamptz,
        failed_at timestamptz,
        error text
    )
    """,
    """
    create index outbox_unpublished
        on outbox (consumer_group, source_topic, source_partition, id)
        where published_at is null and failed_at is null
    """,
    """
    create table processed_messages (
        message_id text primary key,
        lead_id text,
        processing_status text not null check (
            processing_status in ('success', 'failed', 'retrying')
        ),
        processed_at timestamptz not null default now(),
        expires_at timestamptz,
        created_at timestamptz not null default now()
    )
    """,
    "create index processed_messages_lead on processed_messages (lead_id)",
    "create index processed_messages_expiry on processed_messages (expires_at)",
    # One row for each dead-lettered record, or action of it. The id is that of its first letter;
    # letter_ids are those applied so far, so that a repeated letter changes nothing.
    """
    create table dead_letter_queue (
        dead_letter_id text primary key,
        letter_ids text[] not null,
        message_id text not null,
        lead_id text,
        topic text not null,
        partition int not null,
        "offset" bigint not null,
        record_timestamp timestamptz not null,
        action text not null default '',
        run int not null default 0,
        reason text not null,
        original_key bytea,
        original_value bytea,
        headers jsonb not null default '[]',
        original_payload jsonb,
        error_message text,
        error_stack text,
        attempt_count int not null default 0,
        first_attempt_at timestamptz,
        last_attempt_at timestamptz,
        status text not null default 'failed' check (status in ('failed', 'retrying', 'resolved')),
        created_at timestamptz not null default now(),
        updated_at timestamptz not null default now(),
        unique (topic, partition, "offset", record_timestamp, action)
    )
    """,
    "create index dead_letter_queue_message on dead_letter_queue (message_id)",
    "create index dead_letter_queue_lead on dead_letter_queue (lead_id)",
    "create index dead_letter_queue_status on dead_letter_queue (status, created_at)",
    "create index dead_letter_queue_letters on dead_letter_queue using gin (letter_ids)",
    """
    create table tasks (
        task_id text primary key,
        lead_id text,
        business_id text,
        tenant_id text,
        task_type text not null,
        title text not null,
        description text,
        status text not null default 'pending' check (
            status in ('pending', 'in_progress', 'completed', 'cancelled')
        ),
        priority text not null default 'normal' check (
            priority in ('low', 'normal', 'high', 'critical')
        ),
        assigned_to_type text,
        assigned_to_id text,
        due_date timestamptz,
        metadata jsonb not null default '{}',
        processing_id text,
        run int,
        created_at timestamptz not null default now(),
        updated_at timestamptz not null default now()
    )
    """,
    "create index tasks_processing on tasks (processing_id)",
    "create index tasks_lead on tasks (lead_id)",
    "create index tasks_status on tasks (status, due_date)",
    """
    create table if not exists leads (
        lead_id text,
        business_id text,
        tenant_id text,
        status text,
        primary key (lead_id, business_id)
    )
    """,
    """
    create table if not exists lead_activities (
        activity_id text primary key,
        lead_id text,
        business_id text,
        tenant_id text,
        activity_type text,
        activity_description text,
        actor_type text,
        actor_name text,
        channel text,
        message_content text,
        metadata jsonb,
        activity_timestamp timestamptz not null default now(),
        created_at timestamptz not null default now()
    )
    """,
    """
    create table audit_log (
        audit_id bigint generated always as identity primary key,
        at timestamptz not null default now(),
        actor text not null,
        action text not null,
        target text not null,
        details jsonb not null default '{}'
    )
    """,
    "create index audit_log_target on audit_log (target, at)",
]


def upgrade() -> None:
    for statement in STATEMENTS:
        op.get_bind().exec_driver_sql(statement)
