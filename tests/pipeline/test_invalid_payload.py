"""What is refused, how it is told, and what just passes; on random input as well."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamapp.pipeline.messages import AIResult, InvalidPayload, decode
from tests.pipeline.records import (
    LIMIT,
    envelope,
    nested,
    raw,
    read,
    read_result,
    record,
    result,
    without,
)

BAD_IDS: list[Any] = ["", "a" * 257, "a\nb", "a\x7f", "a\x85", 7, 1.5, True, [], {}, ["p-1"]]
NO_OBJECTS: list[Any] = ["X", 1, True, [], [{}]]
NO_TEXTS: list[Any] = [1, True, [], {}, 10**40]
BAD_CONFIDENCES: list[Any] = ["0.9", True, False, [], [0.9], {}, -0.01, 1.01, 2, -1, 10**40]

INVALID: list[tuple[str, Any]] = [
    ("not UTF-8", b'{"processing_id": "\xff"}'),
    ("not UTF-8", json.dumps(result()).encode("utf-16")),
    ("not UTF-8", b'{"a": "\xed\xa0\x80"}'),
    ("not JSON", b""),
    ("not JSON", b"   "),
    ("not JSON", b"{"),
    ("not JSON", b"hello"),
    ("not JSON", b"\xef\xbb\xbf{}"),
    ("not JSON", b"\x00"),
    ("not JSON", b'{"a": "\x00"}'),
    ("not JSON", b'{"a": 01}'),
    ("not JSON", json.dumps(result()).encode() * 2),
    ("no JSON object", b"null"),
    ("no JSON object", b"[]"),
    ("no JSON object", b'"text"'),
    ("no JSON object", b"12"),
    ("no JSON object", b"9" * 10_000),
    ("NaN", raw('{"a": NaN}')),
    ("Infinity", raw('{"a": [Infinity]}')),
    ("-Infinity", raw('{"a": {"b": -Infinity}}')),
    ("NaN", json.dumps(result(intent={"intent": "X", "confidence": float("nan")})).encode()),
    ("NaN", json.dumps(result(whatever=float("nan"))).encode()),
    ("nested", nested(65)),
    ("nested", nested(1000)),
    ("nested", b"[" * 100_000),
    ("nested", b'{"a":' * 40_000),
    ("nested", nested(65).replace(b"[", b'{"b":[').replace(b"]", b"]}")),
    ("NUL", raw(r'{"a": "x\u0000y"}')),
    ("NUL", raw(r'{"a": {"\u0000": 1}}')),
    ("NUL", raw(r'{"a": "\\\u0000"}')),
    ("NUL", json.dumps(result(original_message="a\0b")).encode()),
    ("NUL", json.dumps(result(unknown_field=["\0"])).encode()),
    ("NUL", json.dumps(envelope(result(), note="\0")).encode()),
    ("lone surrogate", raw(r'{"a": "\ud800"}')),
    ("lone surrogate", raw(r'{"a": ["\udc00"]}')),
    ("lone surrogate", raw(r'{"a": "\udc00\ud800"}')),
    ("lone surrogate", raw(r'{"\uD83D": 1}')),
    ("lone surrogate", raw(r'{"a": "\ud83dx\ude00"}')),
    ("lone surrogate", json.dumps(result(processing_id="\ud800")).encode()),
    ("payload of the envelope", envelope("text")),
    ("payload of the envelope", envelope(None)),
    ("payload of the envelope", envelope([result()])),
    ("payload of the envelope", result(event_type="ai.process.result", payload=None)),
    ("event_type", envelope(result(), "ai.process.started")),
    ("event_type", envelope(result(), "")),
    ("event_type", envelope(result(), 7)),
    ("event_type", envelope(result(), ["ai.error"])),
    ("event_type", envelope(result(), False)),
    ("event_type", result(event_type="AI.ERROR")),
    ("processing_id is missing", {"payload": result(), "event_id": "e", "timestamp": 1}),
    ("processing_id is missing", {"payload": result(), "event_type": None}),
    ("processing_id is missing", {}),
    *((f"{name} is missing", without(name)) for name in ("processing_id", "lead_id")),
    ("business_id is missing", without("business_id")),
    *((f"{name} is missing", result(**{name: None})) for name in ("processing_id", "lead_id")),
    *(
        (f"{name} is no text", result(**{name: wrong}))
        for name in ("processing_id", "lead_id", "business_id", "tenant_id")
        for wrong in BAD_IDS
    ),
    ("processing_id is no text", json.dumps(result(processing_id=10**30)).encode()),
    *(("intent is no object", result(intent=wrong)) for wrong in NO_OBJECTS),
    *(
        ("name of the intent", result(intent={"intent": wrong, "confidence": 0.9}))
        for wrong in NO_TEXTS
    ),
    *(
        ("confidence", result(intent={"intent": "COMPLAINT", "confidence": wrong}))
        for wrong in BAD_CONFIDENCES
    ),
    ("confidence", json.dumps(result(intent={"confidence": 7})).replace("7", "1e999").encode()),
    *(("entities is no object", result(entities=wrong)) for wrong in [*NO_OBJECTS, "", 0, False]),
    *(
        ("original_message is no text", result(original_message=wrong))
        for wrong in [*NO_TEXTS, False]
    ),
    ("lead_id is missing", envelope({"error_type": "timeout"}, "ai.error")),
    ("business_id is no text", envelope({"lead_id": "lead-1", "business_id": ""}, "ai.error")),
    ("tenant_id is no text", envelope({"lead_id": "lead-1", "tenant_id": 5}, "ai.error")),
    ("error_type is no text", envelope({"lead_id": "lead-1", "error_type": 5}, "ai.error")),
    ("error_message is no text", envelope({"lead_id": "lead-1", "error_message": []}, "ai.error")),
    ("event_id is no text", envelope({"lead_id": "lead-1"}, "ai.error", event_id=5)),
]


@pytest.mark.parametrize(("told", "document"), INVALID)
def test_an_invalid_payload_is_refused_and_told(told: str, document: Any) -> None:
    with pytest.raises(InvalidPayload) as raised:
        read(document)
    assert told in str(raised.value)


def test_a_null_value_is_refused() -> None:
    with pytest.raises(InvalidPayload, match="null"):
        decode(record(None), max_payload_bytes=LIMIT)


@pytest.mark.parametrize("key", [None, b"", b"lead-2", b"lead-1 ", b"LEAD-1", b'"lead-1"', b"\xff"])
@pytest.mark.parametrize("document", [result(), envelope({"lead_id": "lead-1"}, "ai.error")])
def test_the_key_must_be_the_lead(key: bytes | None, document: Any) -> None:
    with pytest.raises(InvalidPayload, match="key"):
        read(document, key)


def test_the_key_is_the_leads_utf8() -> None:
    assert read_result(result(lead_id="Ленка"), "Ленка".encode()).lead_id == "Ленка"


def test_the_size_limit_itself_is_allowed() -> None:
    value = json.dumps(result()).encode()
    assert decode(record(value), max_payload_bytes=len(value)) == read(result())
    with pytest.raises(InvalidPayload, match=f"{len(value)} bytes"):
        decode(record(value), max_payload_bytes=len(value) - 1)


@pytest.mark.parametrize("length", [1, 256])
def test_ids_have_1_to_256_characters(length: int) -> None:
    name = "é" * length
    message = read_result(
        result(processing_id=name, lead_id=name, business_id=name, tenant_id=name), name.encode()
    )
    assert message.processing_id == message.lead_id == name
    assert message.business_id == message.tenant_id == name


def test_nesting_of_64_is_allowed() -> None:
    read(nested(64))
    read(nested(64).replace(b"[]", b'{"[[[[": "]"}'))


def test_many_brackets_are_not_nesting() -> None:
    read(raw('{"a": [' + ",".join(["[{}]"] * 5_000) + "]}"))
    read(raw(json.dumps({"a": "[{" * 5_000})))


def test_an_escaped_backslash_before_u0000_is_no_nul() -> None:
    assert read_result(raw(r'{"a": "\\u0000"}')).entities == {"a": "\\u0000"}
    assert read_result(raw(r'{"a": "\\\\u0000"}')).entities == {"a": "\\\\u0000"}


def test_escaped_pairs_are_characters() -> None:
    assert read_result(raw(r'{"a": "\ud83d\ude00"}')).entities == {"a": "\U0001f600"}


def test_of_duplicate_keys_the_last_counts() -> None:
    assert read_result(raw('{"a": 1, "a": 2}')).entities == {"a": 2}
    value = json.dumps(result()).encode()
    assert read_result(b'{"processing_id": 5,' + value[1:]).processing_id == "p-1"


@pytest.mark.parametrize(
    "number", [0, -1, 2**63, 2**64 - 1, -(2**63), 2**64, -(2**63) - 1, 10**19, 10**29, 10**30 - 1]
)
def test_integers_stay_exact(number: int) -> None:
    kept = read_result(raw(f'{{"a": {number}}}')).entities["a"]
    assert int(kept) == number
    assert isinstance(kept, int) == (-(2**63) <= number < 2**64)


@pytest.mark.parametrize("number", ["9" * 31, "-" + "9" * 5_000, "1e999", "-1e999", "9" * 200_000])
def test_what_no_number_can_hold_stays_serialisable(number: str) -> None:
    message = read_result(raw(f'{{"a": [{number}]}}'))
    assert json.loads(json.dumps(message.entities)) == {"a": [number]}


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (without("lead_id"), "p-1"),
        (envelope(without("lead_id")), "p-1"),
        (nested(65), "p-1"),
        (raw(r'{"a": "\u0000"}'), "p-1"),
        (raw(r'{"a": "\ud800"}'), "p-1"),
        (envelope(result(), "ai.other"), "p-1"),
        (result(processing_id="a\0"), None),
        (result(processing_id="\ud800"), None),
        (result(processing_id=""), None),
        (result(processing_id=10**30), None),
        (envelope([result()]), None),
        (without("processing_id"), None),
        ([result()], None),
        (b"{", None),
        (envelope({}, "ai.error", event_id="e-1"), "ai.error:e-1"),
        (envelope([], "ai.error", event_id="e-1"), "ai.error:e-1"),
        (envelope({}, "ai.error"), "ai.error:ai-results:3:17"),
        (envelope({"lead_id": "lead-1"}, "ai.error", event_id=""), "ai.error:ai-results:3:17"),
    ],
)
def test_a_refusal_carries_the_id_where_it_has_one(document: Any, expected: str | None) -> None:
    with pytest.raises(InvalidPayload) as raised:
        read(document)
    assert raised.value.processing_id == expected


def test_a_refusal_repeats_nothing_of_the_content() -> None:
    with pytest.raises(InvalidPayload) as raised:
        read(result(lead_id="someone-else", original_message="my secret"), b"lead-1")
    assert "someone-else" not in str(raised.value)
    with pytest.raises(InvalidPayload) as raised:
        read(b'{"original_message": "my secret" oops')
    assert "secret" not in str(raised.value)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=-(10**40), max_value=10**40)
    | st.floats()
    | st.text()
    | st.text(st.characters(categories=["Cs", "Cc", "Lu"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
names = st.sampled_from([*result(), "event_type", "payload", "event_id", "error_type"])


def decode_anything(value: bytes, key: bytes | None) -> None:
    try:
        message = decode(record(value, key), max_payload_bytes=LIMIT)
    except InvalidPayload:
        return
    assert key == message.lead_id.encode()
    assert 1 <= len(message.lead_id) <= 256
    if isinstance(message, AIResult):
        assert 0.0 <= message.confidence <= 1.0
        assert message.payload_hash
        json.dumps(message.entities, allow_nan=False).encode()
        message.text.encode()


@given(st.binary(max_size=300), st.none() | st.binary(max_size=5))
def test_random_bytes_are_refused_or_valid(value: bytes, key: bytes | None) -> None:
    decode_anything(value, key)


@given(json_values, st.none() | st.binary(max_size=5))
def test_random_json_is_refused_or_valid(document: Any, key: bytes | None) -> None:
    decode_anything(json.dumps(document).encode(), key)


@given(st.dictionaries(names, json_values, max_size=3), st.booleans(), st.booleans())
def test_a_result_with_anything_in_it_is_refused_or_valid(
    changes: dict[str, Any], wrapped: bool, ascii_only: bool
) -> None:
    document = result(**changes)
    if wrapped:
        document = envelope(document)
    text = json.dumps(document, ensure_ascii=ascii_only)
    decode_anything(text.encode(errors="surrogatepass"), b"lead-1")


@given(st.data())
def test_a_damaged_result_is_refused_or_valid(data: st.DataObject) -> None:
    value = bytearray(json.dumps(envelope(result(), event_id="e-1")).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        value[data.draw(st.integers(0, len(value) - 1))] = data.draw(st.integers(0, 255))
    decode_anything(bytes(value), b"lead-1")
