-- What a contender without streamapp keeps: a journal by step, and the rows of the work itself.
create table processed_messages (
    message_id text primary key,
    lead_id text not null,
    status text not null,
    processed_at timestamptz not null default now()
);
create table sagas (
    processing_id text primary key,
    lead_id text not null,
    business_id text not null,
    status text not null,
    payload jsonb not null,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);
create table saga_steps (
    processing_id text not null,
    step text not null,
    status text not null,
    result jsonb,
    started_at timestamptz not null default now(),
    finished_at timestamptz,
    primary key (processing_id, step)
);
create table orders (
    processing_id text primary key,
    lead_id text not null,
    business_id text not null,
    details jsonb not null,
    created_at timestamptz not null default now()
);
create table notifications (
    processing_id text primary key,
    lead_id text not null,
    team text not null,
    text text not null,
    created_at timestamptz not null default now()
);
create table replies (
    processing_id text primary key,
    topic text not null,
    key text not null,
    value jsonb not null,
    created_at timestamptz not null default now()
);
create table dead_letters (
    id bigint generated always as identity primary key,
    processing_id text,
    key bytea,
    value bytea,
    reason text not null,
    created_at timestamptz not null default now()
);
