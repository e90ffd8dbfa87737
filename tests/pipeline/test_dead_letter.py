"""Headers of dead letters: complete, bounded, replaced, and read back as they were written."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamapp.pipeline.dead_letter import (
    MAX_MESSAGE,
    MAX_STACKTRACE,
    PREFIX,
    dead_letter,
    dead_letter_headers,
    describe,
    origin_of,
    parse_headers,
    without_stacktrace,
)
from streamapp.pipeline.outcomes import Headers, Reason, Record
from streamapp.saga.ids import dead_letter_id
from streamapp.saga.model import Source

SOURCE = Source("ai-results", 3, 42, 1_700_000_000_123)
FIRST = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
LETTER = dead_letter(
    SOURCE,
    reason=Reason.STEP_REJECTED,
    group="streamapp",
    message="no such product",
    processing_id="m-1",
    action="create_order",
    run=2,
    exception="streamapp.services.errors.Rejected",
    stacktrace="Traceback ...",
    attempts=4,
    first_attempt_at=FIRST,
    last_attempt_at=FIRST + timedelta(seconds=21),
)
NAMES = [
    "id",
    "topic",
    "partition",
    "offset",
    "timestamp",
    "group",
    "origin",
    "processing_id",
    "action",
    "run",
    "reason",
    "exception",
    "message",
    "stacktrace",
    "attempts",
    "first_attempt_at",
    "last_attempt_at",
    "has_saga",
    "redrive",
]


def texts(headers: Headers) -> dict[str, str]:
    return {
        name.removeprefix(PREFIX): value.decode()
        for name, value in headers
        if name.startswith(PREFIX)
    }


def test_every_header_of_the_contract_is_there_once() -> None:
    names = [name for name, _ in dead_letter_headers((), LETTER)]
    assert names == [PREFIX + name for name in NAMES]


def test_the_values_are_text() -> None:
    found = texts(dead_letter_headers((), LETTER))
    assert found["topic"] == "ai-results"
    assert found["partition"] == "3"
    assert found["offset"] == "42"
    assert found["timestamp"] == "1700000000123"
    assert found["origin"] == "ai-results:3:42:1700000000123"
    assert found["reason"] == "step_rejected"
    assert found["run"] == "2"
    assert found["attempts"] == "4"
    assert found["first_attempt_at"] == "2026-05-01T12:00:00+00:00"


def test_reading_gives_back_what_was_written() -> None:
    assert parse_headers(dead_letter_headers((("own", b"\xff"),), LETTER)) == LETTER


def test_own_headers_are_kept_and_older_errors_replaced() -> None:
    own: Headers = (("trace", b"1"), ("trace", b"2"), ("bytes", b"\xff\x00"))
    old = dead_letter_headers(own, replace(LETTER, message="an older failure"))
    new = dead_letter_headers(old, LETTER)
    assert new[:3] == own
    assert [name for name, _ in new[3:]] == [PREFIX + name for name in NAMES]
    assert texts(new)["message"] == "no such product"


def test_the_id_is_that_of_first_source_action_and_run() -> None:
    redriven = Source("ai-results", 3, 99, 1_800_000_000_000)
    letter = dead_letter(
        redriven,
        origin=SOURCE,
        reason=Reason.HANDLER_ERROR,
        group="g",
        message="",
        action="notify_sales",
        run=1,
    )
    assert letter.id == dead_letter_id("ai-results:3:42", 1_700_000_000_123, "notify_sales", 1)
    assert letter.source == redriven
    assert letter.origin == SOURCE


@pytest.mark.parametrize("text", ["é" * 20_000, "x" * 20_000, "\ud800" * 20_000])
def test_texts_are_bounded_in_bytes_and_stay_utf8(text: str) -> None:
    letter = replace(LETTER, message=text, stacktrace=text, exception=text)
    headers = dict(dead_letter_headers((), letter))
    assert MAX_MESSAGE - 2 <= len(headers[PREFIX + "message"]) <= MAX_MESSAGE == 2048
    assert MAX_STACKTRACE - 2 <= len(headers[PREFIX + "stacktrace"]) <= MAX_STACKTRACE == 8192
    assert len(headers[PREFIX + "exception"]) <= 256
    headers[PREFIX + "stacktrace"].decode()


def test_the_end_of_a_stack_trace_and_the_beginning_of_a_message_are_kept() -> None:
    long = "first " + "x" * 20_000 + " last"
    found = texts(dead_letter_headers((), replace(LETTER, message=long, stacktrace=long)))
    assert found["message"].startswith("first")
    assert found["stacktrace"].endswith("last")


def test_an_error_is_described_with_its_cause() -> None:
    try:
        try:
            raise KeyError("inner")
        except KeyError as error:
            raise ValueError("outer") from error
    except ValueError as error:
        name, message, trace = describe(error)
    assert (name, message) == ("ValueError", "outer")
    assert "KeyError: 'inner'" in trace
    assert trace.rstrip().endswith("ValueError: outer")


def test_without_stacktrace_leaves_the_rest() -> None:
    bare = without_stacktrace(dead_letter_headers((("own", b"1"),), LETTER))
    assert parse_headers(bare) == replace(LETTER, stacktrace="")
    assert ("own", b"1") in bare


def test_a_zone_is_normalised() -> None:
    moment = datetime(2026, 5, 1, 14, 0, tzinfo=timezone(timedelta(hours=2)))
    read = parse_headers(dead_letter_headers((), replace(LETTER, first_attempt_at=moment)))
    assert read is not None
    assert read.first_attempt_at == FIRST


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("id", b""),
        ("id", b"x" * 257),
        ("id", b"\xff"),
        ("id", b"a\0b"),
        ("topic", b""),
        ("topic", b"x" * 250),
        ("partition", b"2147483648"),
        ("partition", b"-1"),
        ("offset", b"9223372036854775808"),
        ("offset", b"1e3"),
        ("timestamp", b"9" * 5000),
        ("origin", b"ai-results:3"),
        ("origin", b"ai-results:3:42:99999999999999999999"),
        ("origin", b":3:42:1"),
        ("run", b"2147483648"),
        ("run", b""),
        ("attempts", b"2147483648"),
        ("reason", b"bad luck"),
        ("action", b"x" * 257),
        ("processing_id", b"x" * 257),
        ("first_attempt_at", b"yesterday"),
        ("first_attempt_at", b"2026-05-01T12:00:00"),
        ("last_attempt_at", b"0001-01-01T00:00:00+14:00"),
    ],
)
def test_headers_that_the_table_could_not_hold_are_not_ours(name: str, value: bytes) -> None:
    headers = tuple(
        (key, value if key == PREFIX + name else old)
        for key, old in dead_letter_headers((), LETTER)
    )
    assert parse_headers(headers) is None


@pytest.mark.parametrize("name", ["id", "topic", "partition", "offset", "origin", "run", "reason"])
def test_a_missing_header_makes_it_somebody_elses(name: str) -> None:
    headers = dead_letter_headers((), LETTER)
    assert parse_headers(tuple(h for h in headers if h[0] != PREFIX + name)) is None


def test_a_record_without_headers_is_somebody_elses() -> None:
    assert parse_headers(()) is None


@given(
    st.lists(
        st.tuples(st.sampled_from([PREFIX + name for name in NAMES]), st.binary(max_size=40)),
        max_size=20,
    )
)
def test_reading_never_raises(headers: list[tuple[str, bytes]]) -> None:
    parse_headers((*dead_letter_headers((), LETTER), *headers))


def record(*headers: tuple[str, bytes]) -> Record:
    return Record("ai-results", 1, 9, 5, b"lead", b"{}", headers)


def test_the_origin_of_a_redriven_record_is_the_one_it_names() -> None:
    redriven = (("__streamapp.redrive.id", b"x"), *dead_letter_headers((), LETTER))
    assert origin_of(record(*redriven)) == SOURCE


def test_the_origin_is_the_record_itself_without_a_redrive() -> None:
    own = Source("ai-results", 1, 9, 5)
    assert origin_of(record()) == own
    assert origin_of(record(*dead_letter_headers((), LETTER))) == own
    broken = (("__streamapp.redrive.id", b"x"), (PREFIX + "origin", b"nonsense"))
    assert origin_of(record(*broken)) == own
    assert origin_of(record(*broken[:1], (PREFIX + "origin", b"\xff:1:1:1"))) == own
