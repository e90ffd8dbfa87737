"""What became of records of the input topic, as far as it is still known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from streamapp.pipeline.rehearsal import Place, Read, Recorded, parse
from streamapp.storage.connection import Pool


class RecordedPlans:
    """Reads the plans of sagas, and the reasons of dead letters from before a saga."""

    def __init__(self, pool: Pool, topic: str) -> None:
        self._pool = pool
        self._topic = topic

    async def find(self, records: Mapping[Place, Read]) -> dict[Place, Recorded]:
        """By partition and offset."""
        ids = list({read.processing_id for read in records.values()} - {None})
        sagas = {
            row["processing_id"]: row
            for row in await self._pool.fetch(
                'SELECT processing_id, run, plan, topic, partition, "offset", tenant_id '
                "FROM sagas WHERE processing_id = ANY($1)",
                ids,
            )
        }
        letters = await self._letters(list(records))
        found: dict[Place, Recorded] = {}
        for place, read in records.items():
            saga = sagas.get(read.processing_id)
            if saga is not None and (saga["topic"], saga["partition"], saga["offset"]) == (
                read.record.topic,
                *place,
            ):
                found[place] = Recorded(
                    plan=parse(saga["plan"]), run=saga["run"], tenant_id=saga["tenant_id"] or ""
                )
            elif place in letters:
                found[place] = Recorded(reason=letters[place])
            elif saga is not None:
                found[place] = Recorded(duplicate=True)
        return found

    async def _letters(self, places: Sequence[Place]) -> dict[Place, str]:
        rows = await self._pool.fetch(
            'SELECT l.partition, l."offset", l.reason FROM dead_letter_queue l '
            'JOIN unnest($2::int[], $3::bigint[]) AS u(partition, "offset") '
            "USING (partition, \"offset\") WHERE l.topic = $1 AND l.action = '' AND NOT l.has_saga",
            self._topic,
            [partition for partition, _ in places],
            [offset for _, offset in places],
        )
        return {(row["partition"], row["offset"]): row["reason"] for row in rows}
