"""The demo: starts everything, sends traffic, lets services fail, and counts what became of it."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from streamapp.demo.counts import NOTHING, Counter, Counts, counter
from streamapp.demo.display import Display
from streamapp.demo.stack import OUTAGE, UNREAD_TOPIC, DemoError, Stack, running
from streamapp.demo.traffic import Sample, sample

BATCH = 400  # messages of one sample, and between two outages of the same service
_LOOK_EVERY = 0.25  # seconds
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True, slots=True)
class Options:
    """``messages`` None: until stopped. ``patience`` is how long, in seconds, nothing may change
    before what is missing counts as lost. ``lose`` sends the first message where nobody reads,
    to show that a loss is noticed."""

    messages: int | None = None
    exit: bool = False
    seed: int = 1
    port: int | None = None
    rate: float = 40.0  # messages a second
    patience: float = 30.0
    lose: bool = False


@dataclass(frozen=True, slots=True)
class Summary:
    """What became of the messages; ``seconds`` are from the first one sent to the last look."""

    sent: int
    processed: int
    duplicates: int
    dead_lettered: int
    sagas_completed: int
    sagas_compensated: int
    sagas_stuck: int
    seconds: float
    unaccounted: int  # sent, and not come to an end; negative: more ends than messages
    interrupted: bool

    @property
    def lost(self) -> bool:
        """Whether the figures do not add up although nothing was cut short."""
        return self.unaccounted != 0 and not self.interrupted

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(slots=True)
class _Progress:
    began: float = field(default_factory=time.monotonic)
    sent: int = 0  # acknowledged by the broker
    finished: bool = False  # everything is sent
    counts: Counts = NOTHING

    @property
    def complete(self) -> bool:
        return self.finished and self.counts.settled == self.sent

    def summary(self, *, interrupted: bool) -> Summary:
        counts = self.counts
        return Summary(
            sent=self.sent,
            processed=counts.processed,
            duplicates=counts.duplicates,
            dead_lettered=counts.dead_lettered,
            sagas_completed=counts.sagas.get("COMPLETED", 0),
            sagas_compensated=counts.sagas.get("COMPENSATED", 0),
            sagas_stuck=counts.sagas.get("STUCK", 0),
            seconds=round(time.monotonic() - self.began, 2),
            unaccounted=self.sent - counts.settled,
            interrupted=interrupted,
        )


async def run_demo(options: Options, display: Display) -> Summary:
    """Run the demo to its end, or until SIGINT or SIGTERM.

    Raises ``DemoError``, and ``CancelledError`` when it was stopped before the first message.
    A second signal does not wait for anything: the guardian cleans up.
    """
    task = asyncio.current_task()
    assert task is not None
    with _cancelled_by_signals(task):
        display.say("starting broker, database, services and a worker")
        async with running(options.port) as stack, counter(stack) as counts:
            display.begin(stack)
            progress = _Progress()
            try:
                await _work(options, stack, counts, display, progress)
                interrupted = False
            except asyncio.CancelledError:
                task.uncancel()
                interrupted = True
            finally:
                display.end()
            return progress.summary(interrupted=interrupted)


async def _work(
    options: Options, stack: Stack, counts: Counter, display: Display, progress: _Progress
) -> None:
    """Send, and watch until all is done. Raises ``DemoError``."""
    sending = asyncio.create_task(_send(options, stack, progress))
    try:
        await _watch(options, counts, display, progress, sending)
    finally:
        sending.cancel()
        await asyncio.wait([sending])


async def _watch(
    options: Options,
    counts: Counter,
    display: Display,
    progress: _Progress,
    sending: asyncio.Task[None],
) -> None:
    """Return when every message has come to its end, or none has for too long."""
    changed_at = time.monotonic()
    while True:
        if sending.done():
            sending.result()  # raises what it failed with
            progress.finished = True
        before, progress.counts = progress.counts, await counts.look()
        display.update(progress.sent, progress.counts)
        if progress.counts != before or not progress.finished:
            changed_at = time.monotonic()
        if progress.complete and options.exit:
            return
        if not progress.complete and time.monotonic() - changed_at > options.patience:
            return
        await asyncio.sleep(_LOOK_EVERY)


async def _send(options: Options, stack: Stack, progress: _Progress) -> None:
    producer = AIOKafkaProducer(
        bootstrap_servers=stack.settings.kafka_bootstrap_servers, enable_idempotence=True
    )
    await producer.start()
    try:
        loop = asyncio.get_running_loop()
        due = loop.time()
        progress.began = time.monotonic()
        cycle = BATCH if options.messages is None else min(BATCH, options.messages)
        number = 0
        async for record in _traffic(options):
            _fail_services(stack, number % cycle, cycle)
            lost = options.lose and number == 0
            await producer.send_and_wait(
                UNREAD_TOPIC if lost else stack.settings.input_topic,
                record.value,
                key=record.key,
                headers=list(record.headers),
            )
            number += 1
            progress.sent = number
            due += 1 / options.rate
            await asyncio.sleep(max(0.0, due - loop.time()))
    except KafkaError as error:
        raise DemoError(f"message {progress.sent + 1} could not be sent: {error}") from error
    finally:
        await producer.stop()


async def _traffic(options: Options) -> AsyncIterator[Sample]:
    left = options.messages
    seed = options.seed
    while left is None or left > 0:
        size = BATCH if left is None else min(BATCH, left)
        # In a thread: it takes longer than the services' event loop should stand still.
        for record in await asyncio.to_thread(sample, size, seed):
            yield record
        seed += 1
        left = None if left is None else left - size


def _fail_services(stack: Stack, position: int, cycle: int) -> None:
    """Let each service fail once in a cycle, while others are at work."""
    if position == cycle * 3 // 10:
        stack.orders.outage.fail_for(seconds=OUTAGE)
    if position == cycle * 6 // 10:
        stack.mail.outage.fail_for(seconds=OUTAGE)


@contextmanager
def _cancelled_by_signals(task: asyncio.Task[Any]) -> Iterator[None]:
    loop = asyncio.get_running_loop()

    def restore() -> None:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)

    def stop() -> None:
        restore()  # the next one ends the process
        task.cancel()

    for number in _SIGNALS:
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        restore()
