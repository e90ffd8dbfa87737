"""Dead letters that are resolved in the commit of the success that settles them."""

from __future__ import annotations

from collections.abc import Iterable

from streamapp.saga.model import SagaWrite
from streamapp.storage.batch import headers_to_json, insert_rows, to_json
from streamapp.storage.connection import Connection
from streamapp.storage.dead_letters import moment

# A letter that has not arrived yet gets its row now, without ids: it fills in the rest when it
# comes, and finds itself settled.
_SETTLE = """
INSERT INTO dead_letter_queue AS d (dead_letter_id, letter_ids, message_id, lead_id, topic,
    partition, "offset", record_timestamp, action, run, has_saga, reason, original_key,
    original_value, headers, error_message, status, settled_at)
SELECT u.a, '{}', u.b, u.c, u.d, u.e, u.f, u.g, u.h, u.i, true, u.j, u.k, u.l, u.m, u.n,
    'resolved', now()
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::int[], $6::bigint[],
    $7::timestamptz[], $8::text[], $9::int[], $10::text[], $11::bytea[], $12::bytea[],
    $13::jsonb[], $14::text[]) AS u(a, b, c, d, e, f, g, h, i, j, k, l, m, n)
ON CONFLICT (topic, partition, "offset", record_timestamp, action) DO UPDATE SET
    status = 'resolved', settled_at = coalesce(d.settled_at, now()), updated_at = now()
"""

_SETTLE_ACTIONS = """
UPDATE dead_letter_queue AS d SET status = 'resolved', settled_at = now(), updated_at = now()
FROM unnest($1::text[], $2::int[], $3::bigint[], $4::timestamptz[], $5::jsonb[])
    AS u(topic, partition, "offset", record_timestamp, unsettled)
WHERE d.topic = u.topic AND d.partition = u.partition AND d."offset" = u."offset"
    AND d.record_timestamp = u.record_timestamp AND d.action <> ''
    AND NOT u.unsettled ? d.action AND d.settled_at IS NULL
"""


async def settle(connection: Connection, writes: Iterable[SagaWrite]) -> None:
    rows, whole = [], []
    for write in writes:
        settlement, state = write.settlement, write.state
        if settlement is None:
            continue
        origin = settlement.origin
        place = (origin.topic, origin.partition, origin.offset, moment(origin.timestamp_ms))
        rows.append(
            (
                settlement.letter_id,
                state.message.processing_id,
                state.message.lead_id,
                *place,
                settlement.action,
                state.run,
                settlement.reason.value,
                state.key,
                state.value,
                headers_to_json(state.headers),
                state.error,
            )
        )
        if not settlement.action:
            whole.append((*place, to_json(settlement.unsettled)))
    await insert_rows(connection, _SETTLE, rows)
    await insert_rows(connection, _SETTLE_ACTIONS, whole)
