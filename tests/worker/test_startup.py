"""What a worker refuses to start with: an exit code, and a sentence that says what to do."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from streamapp.settings import Settings, load
from tests.support.worker import WorkerProcess
from tests.worker.conftest import Stage

NOWHERE = "127.0.0.1:1"


async def refused(worker: WorkerProcess, code: int) -> str:
    """Start it; it ends with that code and tells why in a few lines, not by a stack trace."""
    status, output, errors = await worker.run("worker")
    assert status == code, output + errors
    assert "Traceback" not in output + errors
    lines = errors.strip().splitlines()
    assert 1 <= len(lines) <= 6, errors
    return errors


async def test_wrong_settings_are_told_all_at_once(stage: Stage) -> None:
    wrong = {
        "STREAMAPP_MAX_IN_FLIGHT": ("0", "'0'", "greater than or equal to 1"),
        "STREAMAPP_RETRY_DELAYS": ("1,soon", "soon", "number"),
        "STREAMAPP_DATABASE_URL": ("mysql://me:hidden@x/y", "(secret)", "postgresql://"),
        "STREAMAPP_ADMIN_TOKEN": ("hidden", "(secret)", "at least 16 characters"),
    }
    told = await refused(stage.worker(**{name: value for name, (value, _, _) in wrong.items()}), 2)
    for name, (_, shown, allowed) in wrong.items():
        (line,) = [line for line in told.splitlines() if name in line]
        assert shown in line
        assert allowed in line
    assert "hidden" not in told


async def test_no_worker_listens_beyond_this_machine_without_a_token(stage: Stage) -> None:
    told = await refused(stage.worker(STREAMAPP_WEB_HOST="0.0.0.0"), 2)
    assert "STREAMAPP_WEB_HOST=0.0.0.0" in told
    assert "STREAMAPP_ADMIN_TOKEN" in told


async def test_a_missing_topic(stage: Stage) -> None:
    stage.create_topics(2, dlq=0)
    told = await refused(stage.worker(), 1)
    assert f"missing: {stage.topics['dlq']}" in told
    assert stage.topics["input"] not in told
    assert "streamapp migrate" in told


async def test_a_missing_migration(stage: Stage, postgres_dsn: str) -> None:
    stage.create_topics(2)
    told = await refused(stage.worker(STREAMAPP_DATABASE_URL=postgres_dsn), 1)
    assert "migrations: not applied" in told
    assert "streamapp migrate" in told


async def test_a_changelog_with_other_partitions(stage: Stage) -> None:
    stage.create_topics(2, changelog=3)
    told = await refused(stage.worker(), 1)
    assert f"{stage.topics['changelog']} has 3 partitions, {stage.topics['input']} has 2" in told
    assert "delete" in told


async def test_a_database_and_a_broker_that_are_not_there(stage: Stage) -> None:
    told = await refused(
        stage.worker(
            STREAMAPP_DATABASE_URL=f"postgresql://me:hidden@{NOWHERE}/none",
            STREAMAPP_KAFKA_BOOTSTRAP_SERVERS=NOWHERE,
            STREAMAPP_STARTUP_TIMEOUT="1.5",
        ),
        1,
    )
    assert f"broker: {NOWHERE} cannot be reached" in told
    assert "STREAMAPP_KAFKA_BOOTSTRAP_SERVERS" in told
    assert "database: cannot be reached" in told
    assert "STREAMAPP_DATABASE_URL" in told
    assert "hidden" not in told


async def test_the_table_is_shared_out_as_the_input_topic_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMAPP_DATA_DIR", str(tmp_path))  # of the app that an import builds
    composition = importlib.import_module("streamapp.app")

    async def partitions(settings: Settings) -> int:
        return 5

    async def nothing() -> None:
        return

    app, runtime = composition.build(load({"STREAMAPP_DATA_DIR": str(tmp_path / "other")}))
    monkeypatch.setattr(composition, "check_start", partitions)
    monkeypatch.setattr(composition, "install", lambda *_: None)
    monkeypatch.setattr(runtime, "start", nothing)
    runtime.views = None
    await app.before_start()
    table = app.tables["seen"]
    assert table.partitions == 5
    assert table.changelog_topic.partitions == 5
