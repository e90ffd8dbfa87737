"""``streamapp rehearse``: what a worker did, planned again by the same code and by other code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import asyncpg

from tests.kafka.job import job, lag, message, read_all, send, wait_until_done
from tests.worker.conftest import Stage

WITHIN = 40.0  # seconds; reached only by a test that fails
BAD = (b"lead", b"{no json")
HANDLER = '''
from streamapp.intents.base import Decision, IntentHandler


class Eager(IntentHandler):
    """Takes complaints before anybody else."""

    intent = "EAGER"
    priority = 99
    emits = frozenset({"assign_to_sales"})

    def accepts(self, message, thresholds):
        return message.intent == "COMPLAINT"

    def decide(self, message, thresholds):
        return Decision(("assign_to_sales",), escalate=True, reply="Call +49 170 1234567")
'''


def with_eager_handler(directory: Path) -> str:
    """A package that is installed where the command runs, not where the worker ran."""
    information = directory / "eager-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: eager\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[streamapp.intents]\neager = eager:Eager\n")
    (directory / "eager.py").write_text(HANDLER)
    return str(directory)


async def everything(stage: Stage, settings: Any) -> dict[str, Any]:
    """All that a command could have changed."""
    connection = await asyncpg.connect(stage.environment["STREAMAPP_DATABASE_URL"])
    try:
        tables = await connection.fetch(
            "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1"
        )
        found: dict[str, Any] = {
            name: sorted(str(dict(row)) for row in await connection.fetch(f"SELECT * FROM {name}"))
            for (name,) in tables
        }
    finally:
        await connection.close()
    for topic in (settings.input_topic, settings.dlq_topic, settings.outbound_topic):
        found[topic] = len(await read_all(settings, topic))
    return found | {"lag": await lag(settings)}


async def test_what_would_change(stage: Stage, tmp_path: Path) -> None:
    stage.create_topics(2)
    worker = stage.worker()
    worker.start()
    await worker.wait_until_ready()
    made = job("job", messages=60, leads=9, duplicates=0.2, seed=5)
    error = {
        "event_id": "event-1",
        "event_type": "ai.error",
        "payload": {"lead_id": "lead", "error_type": "timeout", "error_message": "too slow"},
    }
    records = [*made.records, BAD, (b"lead", json.dumps(error).encode())]
    await send(worker.settings, records)
    await wait_until_done(worker.settings, within=WITHIN)
    dlq = worker.settings.model_copy(update={"input_topic": worker.settings.dlq_topic})
    await wait_until_done(dlq, within=WITHIN)
    assert await worker.stop() == 0
    before = await everything(stage, worker.settings)
    duplicates = len(made.records) - len(made.ids)
    assert duplicates > 0

    async def rehearsed(*arguments: str, **environment: str) -> tuple[int, Any]:
        worker.environment = {**stage.environment, **environment}
        code, output, errors = await worker.run("rehearse", "--json", *arguments)
        assert "Traceback" not in errors
        return code, json.loads(output)

    code, same = await rehearsed("--fail-on-change")
    assert code == 0
    assert same == {
        "read": len(records),
        "compared": len(made.ids) + 2,
        "changed": 0,
        "not_compared": {"duplicate": duplicates},
        "changes": [],
    }

    # By a setting: all are read with less confidence than counts as high now.
    code, unsure = await rehearsed(STREAMAPP_CONFIDENCE_HIGH="0.99")
    assert code == 0
    flagged = next(c for c in unsure["changes"] if c["subject"] == "flag_for_review")
    unknown = sum(b'"UNKNOWN"' in value for _, value in dict(_first(made.records)).items())
    assert unknown > 0
    assert (flagged["kind"], flagged["count"]) == ("action_added", len(made.ids) - unknown)
    assert len(flagged["examples"]) == 3
    code, _ = await rehearsed("--fail-on-change", STREAMAPP_CONFIDENCE_HIGH="0.99")
    assert code == 1

    # By other code.
    eager = with_eager_handler(tmp_path)
    code, other = await rehearsed("--examples", "1", PYTHONPATH=eager)
    complaints = sum(b'"COMPLAINT"' in value for value in dict(_first(made.records)).values())
    assert other["changed"] == complaints > 0
    first = other["changes"][0]
    assert (first["kind"], first["subject"]) == ("handler", "COMPLAINT to EAGER")
    assert (first["count"], len(first["examples"])) == (complaints, 1)
    assert "***67" in json.dumps(other)
    assert "1234567" not in json.dumps(other)
    worker.environment = {**stage.environment, "PYTHONPATH": eager}
    code, text, _ = await worker.run("rehearse")
    assert code == 0
    assert f"handler changed\n  COMPLAINT to EAGER: {complaints}\n" in text
    assert f"{duplicates} not compared: duplicate of another record" in text

    # The newest only; and nothing was done by any of it.
    _, few = await rehearsed("--last", "7")
    assert few["read"] == 7
    assert await everything(stage, worker.settings) == before


def _first(records: list[tuple[bytes, bytes]]) -> list[tuple[str, bytes]]:
    """Each message once, by its id."""
    return [(json.loads(value)["processing_id"], value) for _, value in records]


async def test_what_is_not_worked_off_yet_is_told_apart(stage: Stage) -> None:
    stage.create_topics(1)
    worker = stage.worker()
    await send(worker.settings, [(b"lead", message("m-1", "lead", "COMPLAINT"))])
    code, output, _ = await worker.run("rehearse", "--json", "--fail-on-change")
    assert code == 0
    assert json.loads(output)["not_compared"] == {"nothing_recorded": 1}


async def test_wrong_use_and_what_cannot_be_reached(stage: Stage) -> None:
    worker = stage.worker()
    for arguments, said in (
        (["--last", "0"], "--last"),
        (["--last", "5", "--since", "2026-01-01"], "either --last"),
        (["--since", "yesterday"], "must be a time"),
        (["--since", "2026-01-02", "--until", "2026-01-01"], "--since must be before"),
    ):
        code, _, errors = await worker.run("rehearse", *arguments)
        assert (code, said in errors) == (2, True), errors
    code, _, errors = await worker.run("rehearse")
    assert code == 1
    assert f"there is no topic {worker.settings.input_topic}" in errors
    stage.create_topics(1)
    await send(worker.settings, [BAD])
    worker.environment["STREAMAPP_DATABASE_URL"] = "postgresql://127.0.0.1:9/nobody"
    code, _, errors = await worker.run("rehearse")
    assert code == 1
    assert "the database cannot be reached" in errors
    worker.environment["STREAMAPP_KAFKA_BOOTSTRAP_SERVERS"] = "127.0.0.1:9"
    code, _, errors = await worker.run("rehearse")
    assert code == 1
    assert "127.0.0.1:9 cannot be read" in errors
