"""send: every line once, in order, under its lead's key."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError

from streamapp.cli import send as module
from streamapp.cli.send import BadLine, lead_key
from tests.cli.support import Ran, ran, refused


class Broker:
    """Keeps what producers send. Acknowledges late, so that records are under way."""

    def __init__(self) -> None:
        self.records: list[tuple[str, bytes, bytes | None]] = []
        self.options: dict[str, Any] = {}
        self.error: Exception | None = None
        self.refuse_from: int | None = None
        self.most_under_way = 0
        self.under_way = 0
        self.stopped = False

    def __call__(self, **options: Any) -> Broker:
        self.options = options
        return self

    async def start(self) -> None:
        if self.error is not None:
            raise self.error

    async def send(self, topic: str, value: bytes, key: bytes | None) -> asyncio.Future[None]:
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        number = len(self.records)
        self.records.append((topic, value, key))

        def acknowledge() -> None:
            self.under_way -= 1
            if self.refuse_from is not None and number >= self.refuse_from:
                future.set_exception(KafkaConnectionError("the broker went away"))
            else:
                future.set_result(None)

        asyncio.get_running_loop().call_soon(acknowledge)
        return future

    async def stop(self) -> None:
        self.stopped = True


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Broker:
    fake = Broker()
    monkeypatch.setattr(module, "AIOKafkaProducer", fake)
    return fake


ENV = {"STREAMAPP_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1", "STREAMAPP_INPUT_TOPIC": "in"}


def sent(stdin: bytes, *options: str) -> Ran:
    return ran("send", "-", *options, env=ENV, stdin=stdin)


def test_lines_become_records_keyed_by_lead(broker: Broker) -> None:
    lines = b'{"lead_id": "a", "x": 1.50}\n\n{"payload": {"lead_id": "\\u00e9"}}\r\n'
    found = sent(lines)
    assert (found.code, found.out) == (0, "2 records sent to in\n")
    assert broker.records == [
        ("in", b'{"lead_id": "a", "x": 1.50}', b"a"),
        ("in", b'{"payload": {"lead_id": "\\u00e9"}}', "\u00e9".encode()),
    ]
    assert broker.options["enable_idempotence"] is True
    assert "partitioner" not in broker.options, "the default is the murmur2 of the contract"
    assert broker.stopped


def test_a_file_and_json(broker: Broker, tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    path.write_bytes(b'{"lead_id": "a"}')
    found = ran("send", str(path), "--json", env=ENV)
    assert (found.code, found.json) == (0, {"sent": 1, "topic": "in"})


@pytest.mark.parametrize(
    "line", [b"not json", b"[1]", b"{}", b'{"lead_id": 7}', b'{"lead_id": ""}', b"\xff"]
)
def test_a_bad_line_stops_and_is_named(broker: Broker, line: bytes) -> None:
    found = sent(b'{"lead_id": "a"}\n\n' + line + b'\n{"lead_id": "b"}\n')
    refused(found, 1, "line 3:", "1 records before it")
    assert [key for _, _, key in broker.records] == [b"a"]
    assert broker.under_way == 0
    assert broker.stopped


def test_raw_sends_bad_lines_as_they_are(broker: Broker) -> None:
    found = sent(b'not json\n{"lead_id": "a"}\n\xff\n', "--raw")
    assert found.code == 0
    assert broker.records == [
        ("in", b"not json", None),
        ("in", b'{"lead_id": "a"}', b"a"),
        ("in", b"\xff", None),
    ]


def test_records_under_way_are_bounded(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WINDOW", 10)
    found = sent(b'{"lead_id": "a"}\n' * 100)
    assert found.code == 0
    assert len(broker.records) == 100
    assert broker.most_under_way <= 10


def test_a_record_that_is_not_acknowledged_fails_the_command(broker: Broker) -> None:
    broker.refuse_from = 5
    refused(sent(b'{"lead_id": "a"}\n' * 10), 1, "127.0.0.1:1", "the broker went away")


def test_it_is_told_once(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    broker.refuse_from = 5
    sent(b'{"lead_id": "a"}\n' * 10)
    gc.collect()  # a future whose error nobody looked at tells it when it goes
    assert "never retrieved" not in caplog.text


def test_without_a_broker_it_fails(broker: Broker) -> None:
    broker.error = KafkaConnectionError("nobody there")
    refused(sent(b'{"lead_id": "a"}\n'), 1, "nobody there")
    assert broker.stopped


def test_a_missing_file_is_wrong_use(broker: Broker) -> None:
    refused(ran("send", "/nowhere/at/all", env=ENV), 2, "/nowhere/at/all")


def test_the_lead_inside_the_envelope_wins() -> None:
    assert lead_key(b'{"lead_id": "outer", "payload": {"lead_id": "inner"}}') == b"inner"
    with pytest.raises(BadLine):
        lead_key(b'{"lead_id": "outer", "payload": {}}')
