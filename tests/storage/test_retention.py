"""What is old goes, what is still needed stays."""

from __future__ import annotations

import pytest

from streamapp.storage.retention import BATCH, Retention
from tests.support.bench import Bench
from tests.support.sagas import GROUP

HOUR = 3600.0
KEEP = 10 * HOUR  # and a day


async def saga(bench: Bench, name: str, status: str, age_hours: float) -> None:
    await bench.pool.execute(
        "insert into sagas (processing_id, run, status, consumer_group, topic, partition, lead_id,"
        " finished_at, updated_at) values ($1, 0, $2, $3, 't', 0, $1,"
        " now() - $4 * interval '1 hour', now() - $4 * interval '1 hour')",
        name,
        status,
        GROUP,
        age_hours,
    )
    await bench.pool.execute(
        "insert into saga_steps (processing_id, run, ordinal, direction, action, status)"
        " values ($1, 0, 0, 'forward', 'a', 'DONE')",
        name,
    )


async def left(bench: Bench, table: str, column: str) -> set[str]:
    rows = await bench.pool.fetch(f"select {column} as name from {table}")
    return {row["name"] for row in rows}


@pytest.fixture
def retention(bench: Bench) -> Retention:
    return Retention(bench.pool, GROUP, KEEP)


async def test_old_finished_sagas_go_with_their_steps(bench: Bench, retention: Retention) -> None:
    await saga(bench, "old", "COMPLETED", 34.1)
    await saga(bench, "old-undone", "COMPENSATED", 34.1)
    await saga(bench, "young", "COMPLETED", 33.9)
    await saga(bench, "stuck", "STUCK", 1000)
    assert not await retention.purge()
    assert await left(bench, "sagas", "processing_id") == {"young", "stuck"}
    assert await left(bench, "saga_steps", "processing_id") == {"young", "stuck"}


@pytest.mark.parametrize("status", ["failed", "retrying", "resolved"])
async def test_a_saga_stays_while_a_dead_letter_refers_to_it(
    bench: Bench, retention: Retention, status: str
) -> None:
    await saga(bench, "old", "COMPENSATED", 1000)
    await bench.pool.execute(
        "insert into dead_letter_queue (dead_letter_id, letter_ids, message_id, topic, partition,"
        ' "offset", record_timestamp, action, run, reason, status, attempt_count)'
        " values ('d', '{d}', 'old', 't', 0, 0, now(), '', 0, 'step_rejected', $1, 1)",
        status,
    )
    await retention.purge()
    kept = set() if status == "resolved" else {"old"}
    assert await left(bench, "sagas", "processing_id") == kept


async def test_a_saga_stays_while_its_lead_has_something_unpublished(
    bench: Bench, retention: Retention
) -> None:
    await saga(bench, "old", "COMPLETED", 1000)
    await bench.pool.execute(
        "insert into outbox (record_id, consumer_group, source_topic, source_partition, topic,"
        " headers, lead_id) values ('r', $1, 't', 0, 'out', '[]', 'old')",
        GROUP,
    )
    await retention.purge()
    assert await left(bench, "sagas", "processing_id") == {"old"}
    assert await left(bench, "outbox", "record_id") == {"r"}


async def test_published_records_and_expired_messages_go(
    bench: Bench, retention: Retention
) -> None:
    for name, hours in (("old", 34.1), ("young", 33.9)):
        await bench.pool.execute(
            "insert into outbox (record_id, consumer_group, source_topic, source_partition, topic,"
            " headers, lead_id, published_at)"
            " values ($1, $2, 't', 0, 'out', '[]', 'l', now() - $3 * interval '1 hour')",
            name,
            GROUP,
            hours,
        )
    for name, hours in (("old", 24.1), ("young", 23.9)):
        await bench.pool.execute(
            "insert into processed_messages (message_id, lead_id, processing_status, processed_at,"
            " expires_at) values ($1, 'l', 'success', now(), now() - $2 * interval '1 hour')",
            name,
            hours,
        )
    await retention.purge()
    assert await left(bench, "outbox", "record_id") == {"young"}
    assert await left(bench, "processed_messages", "message_id") == {"young"}


async def test_a_full_batch_asks_for_another(bench: Bench, retention: Retention) -> None:
    await bench.pool.execute(
        "insert into processed_messages (message_id, lead_id, processing_status, processed_at,"
        " expires_at) select n::text, 'l', 'success', now(), now() - interval '3 days'"
        " from generate_series(1, $1) as n",
        BATCH + 1,
    )
    assert await retention.purge()
    assert not await retention.purge()
    assert await left(bench, "processed_messages", "message_id") == set()


async def test_another_group_is_left_alone(bench: Bench) -> None:
    await saga(bench, "old", "COMPLETED", 1000)
    await Retention(bench.pool, "another", KEEP).purge()
    assert await left(bench, "sagas", "processing_id") == {"old"}


async def test_what_a_person_resolved_goes_with_its_requests(
    bench: Bench, retention: Retention
) -> None:
    for name, age in (("old", 34.1), ("young", 33.9)):
        await saga(bench, name, "RESOLVED", age)
        await bench.pool.execute(
            "insert into saga_requests (processing_id, kind, actor, carried_out_at)"
            " values ($1, 'resolve', 'ann', now())",
            name,
        )
    await retention.purge()
    assert await left(bench, "sagas", "processing_id") == {"young"}
    assert await left(bench, "saga_requests", "processing_id") == {"young"}


async def test_old_deliveries_go_and_those_to_look_at_later(
    bench: Bench, retention: Retention
) -> None:
    for name, status, created, finished in (
        ("old", "read", 34.1, 34.1),
        ("young", "sent", 34.1, 33.9),
        ("sent again soon", "sent", 33.9, 34.1),
        ("waiting", "pending", 1000, None),
        ("under way", "sending", 1000, None),
        ("unknown", "unknown", 719, 719),
        ("failed", "failed", 719, 719),
        ("old failure", "failed", 721, 721),
    ):
        await bench.pool.execute(
            "insert into outbound_deliveries (message_id, consumer_group, lead_id, business_id,"
            " tenant_id, recipient, body, created_at, status, finished_at) values ($1, $2, 'l',"
            " 'b', 't', '1', 'x', now() - $4::float8 * interval '1 hour', $3,"
            " now() - $5::float8 * interval '1 hour')",
            name,
            GROUP,
            status,
            created,
            finished,
        )
    await retention.purge()
    kept = {"young", "sent again soon", "waiting", "under way", "unknown", "failed"}
    assert await left(bench, "outbound_deliveries", "message_id") == kept
