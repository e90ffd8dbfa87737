"""The stream of messages: many leads and a hot one, repetitions, bad input, refused orders."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from tests.chaos.evidence import NUMBER, Kind, Sent

LEADS = 300
HOT = 0.05  # share of one lead
AT_ONCE = 0.05  # share of messages that are repeated right after
LATE = 0.05  # the same, later
BAD = 0.03
REMEMBERED = 500  # messages that a late repetition is drawn from
FEW = 30  # messages that a flood of repetitions consists of
REFUSED = "Discontinued lamp"  # the order service refuses orders for it

_PATIENCE_MS = 120_000  # longer than any outage of the broker
_TICK = 0.05  # seconds
_CATCH_UP = 1.0  # seconds of the stream that are made up for after the broker was away

_KINDS = {Kind.ORDER: 45, Kind.REJECTED: 4, Kind.OTHER: 51}
_OTHERS = (("COMPLAINT", 0.9), ("PRICING_INQUIRY", 0.9), ("UNKNOWN", 0.3))


class Traffic:
    """Makes the records; the same seed gives the same messages in the same order.

    Floods have chances of their own, so that their moment changes nothing of the rest.
    """

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)
        self._floods = Random(seed + 1)
        self._seed = seed
        self._sequence: defaultdict[str, int] = defaultdict(int)
        self._recent: list[Sent] = []
        self.sent: dict[int, Sent] = {}

    def next(self) -> list[Sent]:
        """The next records, in the order in which to send them."""
        random = self._random
        made = [self._message()]
        if random.random() < AT_ONCE:
            made.append(self._again(made[0]))
        if random.random() < LATE and self._recent:
            made.append(self._again(random.choice(self._recent)))
        if random.random() < BAD:
            made.append(self._bad(random))
        if len(self._recent) < REMEMBERED:
            self._recent.append(made[0])
        else:
            self._recent[random.randrange(REMEMBERED)] = made[0]
        return made

    def _message(self) -> Sent:
        random = self._random
        kind = random.choices(list(_KINDS), list(_KINDS.values()))[0]
        lead = _lead(random)
        self._sequence[lead] += 1
        processing_id = f"{self._seed}-{lead}-{self._sequence[lead]}"
        intent, confidence = ("ORDER_REQUEST", 0.93)
        if kind is Kind.OTHER:
            intent, confidence = random.choice(_OTHERS)
        product = REFUSED if kind is Kind.REJECTED else "Desk lamp"
        value = _value(processing_id, lead, intent, confidence, product, self._sequence[lead])
        return self._made(kind, processing_id, lead, self._sequence[lead], lead.encode(), value)

    def _again(self, first: Sent) -> Sent:
        return self._made(
            first.kind, first.processing_id, first.lead, first.seq, first.key, first.value
        )

    def flood(self, count: int, *, bad: bool) -> list[Sent]:
        """Records that come all at once: bad ones, or the same few messages again and again."""
        random = self._floods
        if bad:
            return [self._bad(random) for _ in range(count)]
        few = random.sample(self._recent, min(len(self._recent), FEW))
        return [self._again(random.choice(few)) for _ in range(count if few else 0)]

    def _bad(self, random: Random) -> Sent:
        lead = _lead(random)
        key, name = lead.encode(), f"bad-{len(self.sent)}"
        good = _value(name, lead, "ORDER_REQUEST", 0.93, "Desk lamp", 0)
        stranger = {"tenant_id": None, "lead_id": f"stranger-{len(self.sent)}"}
        choices: list[tuple[bytes | None, bytes | None]] = [
            (key, b"\xff\xfe not UTF-8 %d" % len(self.sent)),
            (key, good[: len(good) // 2]),
            (key, None),
            (None, good),
            (b"another lead", good),
            (key, b'{"lead_id": "no other id"}'),
            (key, good.replace(b"Desk lamp", b"NUL \\u0000")),
            (stranger["lead_id"].encode(), _changed(good, stranger)),  # type: ignore[union-attr]
        ]
        if self._recent:
            twin = random.choice(self._recent)
            assert twin.value is not None
            choices.append((twin.key, _changed(twin.value, {"original_message": "another"})))
        key_, value = random.choice(choices)
        return self._made(Kind.BAD, "", lead, 0, key_, value)

    def _made(self, kind: Kind, id_: str, lead: str, seq: int, *record: bytes | None) -> Sent:
        sent = Sent(len(self.sent), kind, id_, lead, seq, *record)
        self.sent[sent.number] = sent
        return sent

    def leads(self) -> Iterator[str]:
        """Leads that the CRM knows: half of them."""
        yield "lead-hot"
        for number in range(0, LEADS, 2):
            yield f"lead-{number:03d}"


def _lead(random: Random) -> str:
    if random.random() < HOT:
        return "lead-hot"
    return f"lead-{random.randrange(LEADS):03d}"


def _value(id_: str, lead: str, intent: str, confidence: float, product: str, seq: int) -> bytes:
    return json.dumps(
        {
            "processing_id": id_,
            "lead_id": lead,
            "business_id": "business-1",
            "tenant_id": "tenant-1",
            "intent": {"intent": intent, "confidence": confidence},
            "entities": {"product": product, "quantity": 3, "seq": seq},
            "original_message": "three of them, please",
            "processing_time_ms": 120,
        }
    ).encode()


def _changed(value: bytes, changes: dict[str, Any]) -> bytes:
    return json.dumps({**json.loads(value), **changes}).encode()


class Stream:
    """Sends the traffic at a steady rate, over whatever happens to the broker.

    ``acknowledged`` holds the numbers of the records that the broker confirmed; ``failures``
    counts those that the client gave up, whose fate only the log tells. Where the machine is too
    slow for the rate it waits while ``crowded()``, for ``waited`` seconds in all.
    """

    def __init__(
        self,
        traffic: Traffic,
        bootstrap: str,
        topic: str,
        rate: float,
        crowded: Callable[[], bool] = lambda: False,
    ) -> None:
        self._traffic = traffic
        self._bootstrap = bootstrap
        self._topic = topic
        self._rate = rate
        self.acknowledged: set[int] = set()
        self.failures = 0
        self.waited = 0.0
        self._crowded = crowded
        self._producer: AIOKafkaProducer | None = None
        # A repetition, or another message under the same id, must come after its original.
        self._turn = asyncio.Lock()
        self._over = asyncio.Event()

    def end(self) -> None:
        """Let ``run`` come to its end."""
        self._over.set()

    async def run(self, seconds: float) -> None:
        """Send for so long, or until ``end``; return once the broker confirmed everything."""
        # Idempotent: a retry of this client must not be the one that doubles or reorders.
        producer = AIOKafkaProducer(
            bootstrap_servers=self._bootstrap,
            enable_idempotence=True,
            linger_ms=5,
            request_timeout_ms=_PATIENCE_MS,
        )
        await producer.start()
        self._producer = producer
        try:
            await self._send_all(producer, seconds)
            await producer.flush()
        finally:
            self._producer = None
            await producer.stop()

    async def flood(self, count: int, *, bad: bool) -> int:
        """Send so many records at once; gives how many there were to send."""
        async with self._turn:
            if self._producer is None:
                return 0
            records = self._traffic.flood(count, bad=bad)
            for record in records:
                await self._send(self._producer, record)
            return len(records)

    async def _send_all(self, producer: Any, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        due = loop.time()
        while loop.time() < end and not self._over.is_set():
            if self._crowded():
                await asyncio.sleep(_TICK)
                self.waited += _TICK
                due = loop.time()
                continue
            due = max(due, loop.time() - _CATCH_UP)
            while due < loop.time() and not self._over.is_set():
                async with self._turn:
                    for record in self._traffic.next():
                        due += 1 / self._rate
                        await self._send(producer, record)
            await asyncio.sleep(_TICK)

    async def _send(self, producer: Any, record: Sent) -> None:
        headers = [(NUMBER, str(record.number).encode())]
        try:
            future = await producer.send(
                self._topic, key=record.key, value=record.value, headers=headers
            )
        except KafkaError:
            self.failures += 1
            return
        future.add_done_callback(lambda done: self._confirm(done, record.number))

    def _confirm(self, done: asyncio.Future[Any], number: int) -> None:
        if done.cancelled() or done.exception() is not None:
            self.failures += 1
        else:
            self.acknowledged.add(number)
