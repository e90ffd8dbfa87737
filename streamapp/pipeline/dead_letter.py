"""The headers of a dead letter: what went wrong, written so that a program can read it back.

Key and value of a dead letter are the record's own bytes. Its own headers are kept, ours
(``__streamapp.errors.*``, UTF-8 text) are added; older ones of ours are replaced, and those of a
redrive (``pipeline.redrive``) are left out.
"""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from datetime import UTC, datetime

from streamapp.pipeline.outcomes import Headers, Reason, Record
from streamapp.saga.ids import dead_letter_id
from streamapp.saga.model import Source

PREFIX = "__streamapp.errors."
REDRIVE_PREFIX = "__streamapp.redrive."
FROM_SAGA = "saga"  # stands for the exception's name where a saga failed and no code raised
NO_RUN = -1  # stands for the run of a message that never had one
MAX_MESSAGE = 2048  # bytes
MAX_STACKTRACE = 8192  # bytes
MAX_NAME = 256  # characters of an id or a name
MAX_TOPIC = 249  # characters; Kafka's own limit

_MAX_INT = 2**31 - 1
_MAX_BIGINT = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """What the headers say.

    ``source`` is the record whose delivery failed, ``origin`` the one in which the message came
    first: they differ after a redrive. ``action`` is empty when the whole record failed.
    ``has_saga``: the message has a saga, which stood at ``run`` (0 where there is none).
    ``redrive`` is the id of the redrive that failed, which is that of the letter it answered, else
    empty.
    ``attempts`` counts deliveries or calls, at least 1; the times are those of the first and the
    last of them.
    """

    id: str
    source: Source
    origin: Source
    group: str
    processing_id: str | None
    action: str
    run: int
    has_saga: bool
    redrive: str
    reason: Reason
    exception: str
    message: str
    stacktrace: str
    attempts: int
    first_attempt_at: datetime | None
    last_attempt_at: datetime | None

    @property
    def rank(self) -> int:
        """What makes a letter newer than another one of its message: the run it tells of."""
        return self.run if self.has_saga else NO_RUN


def dead_letter(
    source: Source,
    *,
    reason: Reason,
    group: str,
    message: str,
    origin: Source | None = None,
    processing_id: str | None = None,
    action: str = "",
    run: int = 0,
    has_saga: bool = False,
    redrive: str = "",
    exception: str = "",
    stacktrace: str = "",
    attempts: int = 1,
    first_attempt_at: datetime | None = None,
    last_attempt_at: datetime | None = None,
) -> DeadLetter:
    """A letter with its deterministic id: first source, action, run, redrive (protocol, 5).

    Within a redrive, what failed before the run began is another failure than the run's own.
    """
    first = origin or source
    has_saga = has_saga or run > 0
    counted = run if has_saga or not redrive else NO_RUN
    return DeadLetter(
        id=dead_letter_id(first.position, first.timestamp_ms, action, counted, redrive),
        source=source,
        origin=first,
        group=group,
        processing_id=processing_id,
        action=action,
        run=run,
        has_saga=has_saga,
        redrive=redrive,
        reason=reason,
        exception=exception,
        message=message,
        stacktrace=stacktrace,
        attempts=attempts,
        first_attempt_at=first_attempt_at,
        last_attempt_at=last_attempt_at,
    )


def describe(error: BaseException) -> tuple[str, str, str]:
    """Class name, message and stack trace of an error, each within its bound."""
    kind = type(error)
    name = (
        kind.__qualname__
        if kind.__module__ == "builtins"
        else f"{kind.__module__}.{kind.__qualname__}"
    )
    trace = "".join(traceback.format_exception(error))
    return name, _head(str(error), MAX_MESSAGE), _tail(trace, MAX_STACKTRACE)


def letter_record(record: Record, letter: DeadLetter) -> Record:
    """The record as it goes to the dead-letter topic: key and value untouched."""
    return Record(
        record.topic,
        record.partition,
        record.offset,
        record.timestamp_ms,
        record.key,
        record.value,
        dead_letter_headers(record.headers, letter),
    )


def dead_letter_headers(original: Headers, letter: DeadLetter) -> Headers:
    """The headers of the dead letter of a record that has the headers ``original``."""
    fields = {
        "id": letter.id,
        "topic": letter.source.topic,
        "partition": str(letter.source.partition),
        "offset": str(letter.source.offset),
        "timestamp": str(letter.source.timestamp_ms),
        "group": letter.group,
        "origin": origin_text(letter.origin),
        "processing_id": letter.processing_id or "",
        "action": letter.action,
        "run": str(letter.run),
        "reason": letter.reason.value,
        "exception": _head(letter.exception, MAX_NAME),
        "message": _head(letter.message, MAX_MESSAGE),
        "stacktrace": _tail(letter.stacktrace, MAX_STACKTRACE),
        "attempts": str(letter.attempts),
        "first_attempt_at": _to_text(letter.first_attempt_at),
        "last_attempt_at": _to_text(letter.last_attempt_at),
        "has_saga": "true" if letter.has_saga else "false",
        "redrive": letter.redrive,
    }
    return own_headers(original) + tuple(
        (PREFIX + name, text.encode(errors="replace")) for name, text in fields.items()
    )


def own_headers(headers: Headers) -> Headers:
    """The record's own headers: those that neither an error nor a redrive added."""
    return tuple(
        (name, value) for name, value in headers if not name.startswith((PREFIX, REDRIVE_PREFIX))
    )


def without_stacktrace(headers: Headers) -> Headers:
    """The same headers with an empty stack trace, for a broker that refuses the size."""
    name = PREFIX + "stacktrace"
    return tuple((key, b"" if key == name else value) for key, value in headers)


def parse_headers(headers: Headers) -> DeadLetter | None:
    """Read a letter back; None when these are not the headers of one of ours.

    Anybody can write to the topic: what comes out is within the bounds that the table has.
    """
    texts = {name.removeprefix(PREFIX): value for name, value in headers if name.startswith(PREFIX)}
    try:
        text = {name: (value or b"").decode() for name, value in texts.items()}
        run = _integer(text["run"], 0, _MAX_INT)
        # Letters of older versions do not say it; those of sagas can be told all the same.
        has_saga = text.get("has_saga") or str(run > 0 or text.get("exception") == FROM_SAGA)
        return DeadLetter(
            id=_name(text["id"]),
            source=_source(text["topic"], text["partition"], text["offset"], text["timestamp"]),
            origin=_origin(text["origin"]),
            group=text.get("group", ""),
            processing_id=_name(text["processing_id"]) if text.get("processing_id") else None,
            action=_name(text["action"]) if text.get("action") else "",
            run=run,
            has_saga=has_saga.lower() == "true",
            redrive=_name(text["redrive"]) if text.get("redrive") else "",
            reason=Reason(text["reason"]),
            exception=text.get("exception", ""),
            message=_head(text.get("message", ""), MAX_MESSAGE),
            stacktrace=_tail(text.get("stacktrace", ""), MAX_STACKTRACE),
            attempts=_integer(text.get("attempts") or "1", 0, _MAX_INT),
            first_attempt_at=_from_text(text.get("first_attempt_at", "")),
            last_attempt_at=_from_text(text.get("last_attempt_at", "")),
        )
    except (KeyError, ValueError, OverflowError):
        return None


def source_of(record: Record) -> Source:
    return Source(record.topic, record.partition, record.offset, record.timestamp_ms)


def origin_of(record: Record) -> Source:
    """The record in which this message came first: named by a redriven record, else itself."""
    own = source_of(record)
    headers = dict(record.headers)
    origin = headers.get(PREFIX + "origin")
    if origin is None or not any(name.startswith(REDRIVE_PREFIX) for name in headers):
        return own
    try:
        return _origin(origin.decode())
    except ValueError:
        return own


def origin_text(origin: Source) -> str:
    return f"{origin.position}:{origin.timestamp_ms}"


def _origin(text: str) -> Source:
    topic, partition, offset, timestamp = text.rsplit(":", 3)
    return _source(topic, partition, offset, timestamp)


def _source(topic: str, partition: str, offset: str, timestamp: str) -> Source:
    if not 1 <= len(topic) <= MAX_TOPIC or not topic.isprintable():
        raise ValueError("no topic's name")
    return Source(
        topic,
        _integer(partition, 0, _MAX_INT),
        _integer(offset, 0, _MAX_BIGINT),
        _integer(timestamp, -1, _MAX_BIGINT),
    )


def _integer(text: str, low: int, high: int) -> int:
    if len(text) > 20:
        raise ValueError("no integer of ours")
    number = int(text)
    if not low <= number <= high:
        raise ValueError("out of range")
    return number


def _name(text: str) -> str:
    if not 1 <= len(text) <= MAX_NAME or "\0" in text:
        raise ValueError("no name of ours")
    return text


def _to_text(moment: datetime | None) -> str:
    return "" if moment is None else moment.isoformat()


def _from_text(text: str) -> datetime | None:
    if not text:
        return None
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("a time without its zone")
    return moment.astimezone(UTC)


def _head(text: str, limit: int) -> str:
    data = text.encode(errors="replace")
    return data[:limit].decode(errors="ignore")


def _tail(text: str, limit: int) -> str:
    # The end of a stack trace is where the error was raised.
    data = text.encode(errors="replace")
    return data[-limit:].decode(errors="ignore")
