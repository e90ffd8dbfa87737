"""Hand-over and shutdown: the order of things, told by fakes in the place of Faust's parts."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import faust
import pytest
from faust.types import TP

from streamapp.settings import load
from streamapp.worker import faust_app
from streamapp.worker.faust_app import StreamApp, StreamWorker
from tests.worker.fakes import DEADLINE


class Log(list[str]):
    """What happened, in order."""

    def does(self, what: str, result: Any = None) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            self.append(what)
            return result

        return call

    def awaits(self, what: str) -> Any:
        async def call(*arguments: Any, **named: Any) -> None:
            self.append(what)

        return call


class Consumer:
    def __init__(self, log: Log, assignment: set[Any] | Exception) -> None:
        self._assignment = assignment
        self.stop_flow = log.does("stop_flow")
        self.pause_partitions = log.does("pause_partitions")
        self.close = log.does("close")

    def assignment(self) -> set[Any]:
        if isinstance(self._assignment, Exception):
            raise self._assignment
        return self._assignment


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def app(log: Log, monkeypatch: pytest.MonkeyPatch) -> StreamApp:
    """An app that is connected to nothing; Faust's own methods only tell that they ran."""
    for name in ("on_first_start", "on_stop", "_on_partitions_revoked", "_on_partitions_assigned"):
        monkeypatch.setattr(faust.App, name, log.awaits(f"faust {name}"))
    app = StreamApp("test", broker="kafka://127.0.0.1:1", store="memory://")
    monkeypatch.setattr(
        app,
        "flow_control",
        SimpleNamespace(suspend=log.does("suspend"), clear=log.does("clear")),
        raising=False,
    )

    async def hand_over(stopping: bool) -> None:
        log.append(f"hand_over stopping={stopping}")

    app.hand_over = hand_over
    app._producer = SimpleNamespace(flush=log.awaits("flush"), buffer=SimpleNamespace())
    app.before_start = log.awaits("before_start")
    app.after_stop = log.awaits("after_stop")
    app.settings = load({})
    return app


async def test_what_a_worker_needs_is_there_before_anything_connects(
    app: StreamApp, log: Log
) -> None:
    await app.on_first_start()
    assert log == ["before_start", "faust on_first_start"]


async def test_intake_ends_then_work_then_faust_then_our_connections(
    app: StreamApp, log: Log
) -> None:
    app._consumer = Consumer(log, {("ai-results", 0)})
    await app.on_stop()
    assert log == [
        "stop_flow",
        "suspend",
        "pause_partitions",
        "clear",
        "hand_over stopping=True",
        "flush",
        "faust on_stop",
        "after_stop",
    ]


@pytest.mark.parametrize("assignment", [set(), RuntimeError("the consumer has not started")])
async def test_stopping_without_an_assignment(
    app: StreamApp, log: Log, assignment: set[Any] | Exception
) -> None:
    app._consumer = Consumer(log, assignment)
    await app.on_stop()
    assert log == ["hand_over stopping=True", "flush", "faust on_stop", "after_stop"]


async def test_stopping_before_there_was_a_consumer(app: StreamApp, log: Log) -> None:
    app._consumer = None
    await app.on_stop()
    assert log == ["faust on_stop", "after_stop"]


async def test_a_hand_over_that_fails_stops_neither_the_stop_nor_the_app(
    app: StreamApp, log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    async def failing(stopping: bool) -> None:
        raise RuntimeError("a defect")

    app.hand_over = failing
    app._consumer = Consumer(log, set())
    await app.on_stop()
    assert log == ["flush", "faust on_stop", "after_stop"]
    await app._hand_over(stopping=False)
    assert "handing the partitions over failed" in caplog.text


async def test_a_hand_over_is_cancelled_with_the_app(app: StreamApp) -> None:
    async def endless(stopping: bool) -> None:
        await asyncio.Event().wait()

    app.hand_over = endless
    task = asyncio.create_task(app._hand_over(stopping=True))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_rebalance_is_fausts_while_the_worker_runs(app: StreamApp, log: Log) -> None:
    await app._on_partitions_revoked({1})
    await app._on_partitions_assigned({1}, 2)
    assert log == ["faust _on_partitions_revoked", "faust _on_partitions_assigned"]


async def test_a_rebalance_while_stopping_hands_over_and_closes_nothing(
    app: StreamApp, log: Log
) -> None:
    app._consumer = Consumer(log, {("ai-results", 0)})
    app._stopped.set()
    assert app.should_stop
    await app._on_partitions_revoked({1})
    await app._on_partitions_assigned({1}, 2)
    assert log == ["hand_over stopping=True", "flush"]


@pytest.mark.parametrize("broken", [False, True])
async def test_a_broker_that_takes_no_marks_holds_no_hand_over_up(
    app: StreamApp, log: Log, monkeypatch: pytest.MonkeyPatch, broken: bool
) -> None:
    async def flush() -> None:
        if broken:
            raise RuntimeError("the producer is not running")
        await asyncio.Event().wait()

    monkeypatch.setattr(faust_app, "FLUSH_TIMEOUT", 0.01)
    app._producer.flush = flush
    await asyncio.wait_for(app._hand_over(stopping=False), DEADLINE)
    assert log == ["hand_over stopping=False"]


async def test_faust_withholds_no_record_of_our_topics(app: StreamApp) -> None:
    await app.on_first_start()
    offsets = app.consumer._read_offset
    changelog = TP("streamapp-seen-changelog", 0)
    for topic in (app.settings.input_topic, app.settings.dlq_topic, changelog.topic):
        offsets[TP(topic, 0)] = 7
    assert offsets[TP(app.settings.input_topic, 0)] is None
    assert offsets[TP(app.settings.dlq_topic, 0)] is None
    assert offsets[changelog] == 7
    assert offsets[TP(changelog.topic, 1)] is None


async def test_a_consumer_that_breaks_its_stop_off_lets_its_thread_end(app: StreamApp) -> None:
    async def stop() -> None:
        fetch = asyncio.create_task(asyncio.sleep(DEADLINE))
        fetch.cancel()
        await fetch  # as aiokafka's fetcher does with one that waits for a broker

    app.consumer._thread._consumer = SimpleNamespace(stop=stop)
    await app.on_first_start()
    await app.consumer._thread.on_thread_stop()


class SeekingConsumer(Consumer):
    """Delivers an event while it goes back to the committed offsets, as a conductor does."""

    def __init__(self, log: Log, app: StreamApp, queue: Any) -> None:
        super().__init__(log, {TP("ai-results", 0)})
        self._app = app
        self._queue = queue
        self.delivery: asyncio.Task[None] | None = None
        self.resume_partitions = log.does("resume_partitions")
        self.resume_flow = log.does("resume_flow")

    async def perform_seek(self) -> None:
        self.delivery = asyncio.create_task(self._deliver())
        for _ in range(10):
            await asyncio.sleep(0)

    async def _deliver(self) -> None:
        await self._app.flow_control.acquire()
        self._queue.put_nowait("an event")


async def test_no_event_is_dropped_between_the_seek_and_the_resumption(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faust.App, "on_first_start", log.awaits("on_first_start"))
    app = StreamApp("test", broker="kafka://127.0.0.1:1", store="memory://")
    app._producer = SimpleNamespace(buffer=SimpleNamespace())
    app.settings = load({})
    await app.on_first_start()
    queue = app.FlowControlQueue(maxsize=10, clear_on_resume=True)
    consumer = app._consumer = SeekingConsumer(log, app, queue)
    app._fetcher = SimpleNamespace(maybe_start=log.awaits("fetch"))
    app.flow_control.resume()  # as for standby tables
    recovery = app.tables.recovery
    await asyncio.wait_for(recovery.on_recovery_completed(app.consumer_generation_id), DEADLINE)
    assert consumer.delivery is not None
    await asyncio.wait_for(consumer.delivery, DEADLINE)
    assert log[-1] == "fetch"
    assert queue.get_nowait() == "an event"


@pytest.fixture
def loggers() -> Iterator[None]:
    names = ("", "faust", "mode", "aiokafka")
    before = {name: logging.getLogger(name).level for name in names}
    handlers = list(logging.getLogger().handlers)
    yield
    logging.getLogger().handlers[:] = handlers
    for name, level in before.items():
        logging.getLogger(name).setLevel(level)


@pytest.mark.parametrize(("level", "others"), [("info", "WARNING"), ("debug", "NOTSET")])
@pytest.mark.usefixtures("loggers")
def test_faust_is_quiet_unless_debugging(level: str, others: str) -> None:
    for name in ("faust", "mode", "aiokafka"):
        logging.getLogger(name).setLevel(logging.NOTSET)
    settings = load({"STREAMAPP_LOG_LEVEL": level})
    worker: Any = SimpleNamespace(app=SimpleNamespace(settings=settings), spinner="spins")
    StreamWorker._setup_logging(worker)
    assert worker.spinner is None
    for name in ("faust", "mode", "aiokafka"):
        assert logging.getLevelName(logging.getLogger(name).level) == others
