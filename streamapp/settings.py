"""Every setting: its variable, its default, what is allowed.

Settings come from the environment, ``STREAMAPP_`` and the field's name in upper case.
``docs/settings.md`` is generated from this module (``python -m streamapp.settings``).
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import (
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)

from streamapp.resilience import crash_points
from streamapp.service_settings import ServiceSettings

PREFIX = "STREAMAPP_"
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
SecondsOrZero = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Ratio = Annotated[float, Field(ge=0, le=1)]
Numbers = tuple[SecondsOrZero, ...]
Names = tuple[str, ...]


class SettingsError(Exception):
    """A wrong setting, as one sentence a line for the person who starts the program."""


class Settings(ServiceSettings):
    """All settings, validated. Times are seconds, sizes bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Connections
    kafka_bootstrap_servers: str = Field(
        "127.0.0.1:9092", description="Kafka brokers, host:port, comma-separated"
    )
    database_url: SecretStr = Field(
        SecretStr("postgresql://127.0.0.1:5432/streamapp"),
        description="PostgreSQL; `DATABASE_URL` is accepted too",
    )
    startup_timeout: Seconds = Field(
        30.0, description="how long start-up waits for broker and database before it gives up"
    )
    data_dir: Path = Field(
        Path("var/streamapp"), description="local state (RocksDB); one worker each"
    )

    # Web
    web_host: str = Field("127.0.0.1", description="address of console, API and metrics")
    web_port: int = Field(6066, ge=0, le=65535, description="port of the same; 0: none is opened")
    admin_token: SecretStr | None = Field(
        None, description="needed by every state-changing call, and beyond loopback by reading too"
    )
    faust_pages: bool = Field(False, description="serve Faust's own table and router pages")

    # Topics
    input_topic: str = Field("ai-results", min_length=1, description="AI results, key = lead id")
    dlq_topic: str = Field("ai-results-dlq", min_length=1, description="dead letters")
    outbound_topic: str = Field("whatsapp-outbound", min_length=1, description="replies")
    consumer_group: str = Field(
        "streamapp", min_length=1, pattern=r"^[A-Za-z0-9._-]+$", description="consumer group"
    )
    topic_partitions: Count = Field(8, description="partitions of topics that `migrate` creates")
    topic_replication: Count = Field(1, description="replication factor of those topics")
    declare_topics: bool = Field(
        True, description="let the worker create its changelog topic; off where brokers forbid it"
    )
    input_retention: Seconds = Field(
        86_400.0, description="retention of the input topic; keep it at or below DEDUP_WINDOW"
    )

    # Consumer
    session_timeout: Seconds = Field(
        10.0, description="silence after which the group gives a worker's partitions away"
    )
    drain_timeout: SecondsOrZero = Field(
        3.0, description="how long work under way may finish when partitions are taken away"
    )
    shutdown_timeout: SecondsOrZero = Field(
        10.0, description="how long work under way may finish on SIGTERM"
    )
    max_fetch_bytes: Count = Field(
        256 * 1024,
        description="bytes fetched from a partition at once; a record beyond it comes alone",
    )
    commit_interval: Seconds = Field(1.0, description="between commits of offsets")

    # Deduplication
    dedup_window: Seconds = Field(
        86_400.0, description="a repetition within it is recognised; keep it above the retention"
    )
    dedup_buckets: int = Field(3, ge=1, le=24, description="time buckets that cover the window")
    dedup_cache: Count = Field(
        64 * 1024 * 1024, description="bytes of RocksDB block cache for each partition"
    )

    # Bounds
    max_in_flight: Count = Field(1000, description="messages worked on at the same time")
    max_queued: Count = Field(
        1000,
        description="records behind one of their lead that is at work or in line for a service",
    )
    max_parked: Count = Field(10_000, description="records that wait: for a retry, or behind one")
    max_parked_bytes: Count = Field(
        256 * 1024 * 1024, description="bytes of the records that wait or are worked on"
    )
    max_unacked: Count = Field(
        20_000, description="records taken in but not yet acknowledged, for each partition"
    )
    max_payload_bytes: Count = Field(262_144, description="a larger value is an invalid payload")

    # Routing
    confidence_minimum: Ratio = Field(0.5, description="below it the UNKNOWN handler takes over")
    confidence_high: Ratio = Field(0.8, description="above it handlers act without asking back")
    suggested_actions: bool = Field(False, description="append the AI's suggested actions")
    suggested_response: bool = Field(
        False, description="let the AI's own reply be used where no text of ours fits better"
    )
    business_refresh: Seconds = Field(
        2.0, description="after it a business's own settings are looked up anew"
    )
    business_cache: Count = Field(1000, description="businesses whose settings are kept")
    businesses: Names = Field(
        (), description="business ids shown as metric labels (comma-separated); others: `other`"
    )

    # Retries and circuits
    retry_delays: Numbers = Field((1.0, 5.0, 15.0), description="waits between attempts of a step")
    retry_jitter: bool = Field(False, description="full jitter on those waits")
    stuck_delays: Numbers = Field(
        (60.0, 300.0, 900.0, 3600.0),
        description="waits between attempts to finish a stuck compensation; the last repeats",
    )
    stuck_give_up: Seconds = Field(86_400.0, description="after it a stuck saga waits for a person")
    circuit_window_calls: Count = Field(20, description="calls a circuit looks back on")
    circuit_window_seconds: Seconds = Field(120.0, description="how far it looks back")
    circuit_min_calls: Count = Field(5, description="calls before it may open")
    circuit_failure_rate: Annotated[float, Field(gt=0, le=1)] = Field(
        0.5, description="share of failures (or of slow calls) at which it opens"
    )
    circuit_slow_call: Seconds = Field(10.0, description="a call longer than this counts as slow")
    circuit_open_seconds: Seconds = Field(60.0, description="how long it stays open")
    circuit_trial_calls: Count = Field(2, description="trial calls while half-open")
    circuit_max_wait: SecondsOrZero = Field(
        120.0, description="how long a required step waits for an open circuit"
    )
    circuit_max_wait_best_effort: SecondsOrZero = Field(
        30.0, description="the same for a best-effort step"
    )

    # Database
    database_pool: Annotated[int, Field(ge=2, le=100)] = Field(
        5, description="connections for look-ups and views; the journal has its own"
    )
    journal_writers: Annotated[int, Field(ge=1, le=8)] = Field(
        2,
        description="connections that commit: while one waits for the server another is at work",
    )
    journal_batch: Count = Field(
        100,
        description="writes in one transaction of the journal; more of them hold the event loop up "
        "while their rows are made",
    )
    statement_timeout: Seconds = Field(5.0, description="limit of one statement of the journal")
    lock_timeout: Seconds = Field(1.0, description="limit of waiting for a row lock")
    outbox_interval: Seconds = Field(
        1.0, description="between looks for unpublished outbox rows that nobody announced"
    )

    environment: str = Field(
        "production", pattern="^(production|test)$", description="`production` or `test`"
    )
    crash_point: str | None = Field(
        None, description="where a test ends the process; refused outside of a test"
    )
    log_level: str = Field(
        "info", pattern="^(debug|info|warning|error)$", description="debug, info, warning or error"
    )
    log_json: bool = Field(False, description="log lines as JSON")

    @field_validator("retry_delays", "stuck_delays", "businesses", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("database_url")
    @classmethod
    def _postgres(cls, value: SecretStr) -> SecretStr:
        if urlsplit(value.get_secret_value()).scheme not in ("postgresql", "postgres"):
            raise ValueError("must be a postgresql:// address")
        return value

    @field_validator("crash_point")
    @classmethod
    def _crash_point(cls, value: str | None) -> str | None:
        if not value:
            return None
        crash_points.parse(value)
        return value

    @field_validator("admin_token")
    @classmethod
    def _token(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None or value.get_secret_value() == "":
            return None
        if len(value.get_secret_value()) < 16:
            raise ValueError("must have at least 16 characters")
        return value

    @model_validator(mode="after")
    def _together(self) -> Settings:
        if self.web_host not in LOOPBACK and self.admin_token is None:
            raise ValueError(
                f"{PREFIX}WEB_HOST={self.web_host} listens beyond this machine, which is allowed "
                f"only with {PREFIX}ADMIN_TOKEN set"
            )
        if self.crash_point is not None and self.environment != "test":
            raise ValueError(
                f"{PREFIX}CRASH_POINT={self.crash_point} ends the process, which is allowed only "
                f"with {PREFIX}ENVIRONMENT=test"
            )
        if self.confidence_minimum > self.confidence_high:
            raise ValueError(
                f"{PREFIX}CONFIDENCE_MINIMUM={self.confidence_minimum} must not be above "
                f"{PREFIX}CONFIDENCE_HIGH={self.confidence_high}"
            )
        if len({self.input_topic, self.dlq_topic, self.outbound_topic}) < 3:
            raise ValueError(
                f"{PREFIX}INPUT_TOPIC, {PREFIX}DLQ_TOPIC and {PREFIX}OUTBOUND_TOPIC must differ"
            )
        return self


def is_secret(name: str) -> bool:
    """Whether a setting's value must never be printed."""
    annotation = Settings.model_fields[name].annotation
    return "SecretStr" in str(annotation)


def load(environment: Mapping[str, str] | None = None) -> Settings:
    """Read the settings, by default from the process's environment.

    Raises ``SettingsError`` with one sentence for each wrong value, naming the variable, the
    value (never a secret one) and what is allowed.
    """
    environ = os.environ if environment is None else environment
    values: dict[str, str] = {}
    for name in Settings.model_fields:
        given = environ.get(PREFIX + name.upper())
        if given is None and name == "database_url":
            given = environ.get("DATABASE_URL")
        if given is not None:
            values[name] = given
    try:
        return Settings(**values)  # type: ignore[arg-type]
    except ValidationError as error:
        raise SettingsError("\n".join(_sentence(problem) for problem in error.errors())) from None


def _sentence(problem: Mapping[str, Any]) -> str:
    message = str(problem["msg"]).removeprefix("Value error, ")
    if not problem["loc"]:
        return f"{message}."
    name = str(problem["loc"][0])
    shown = "(secret)" if is_secret(name) else _without_userinfo(repr(problem["input"]))
    return f"{PREFIX}{name.upper()}={shown} is not valid: {message} ({_allowed(name)})."


def _without_userinfo(text: str) -> str:
    """An address may hold a password; what it refers to is enough to find the mistake."""
    return re.sub(r"//[^/@]*@", "//(secret)@", text)


def _allowed(name: str) -> str:
    return (Settings.model_fields[name].description or "").split(";")[0]


def scratch_dir() -> str:
    """A new directory for throw-away state (demo and tests)."""
    return tempfile.mkdtemp(prefix="streamapp-")


def _table() -> str:
    lines = ["| Variable | Default | Meaning |", "|---|---|---|"]
    fields = Settings.model_fields
    for name in sorted(fields, key=ServiceSettings.model_fields.__contains__):  # those last
        info = fields[name]
        default = info.default
        if isinstance(default, SecretStr):
            default = default.get_secret_value()
        if isinstance(default, dict):
            default = ""
        if isinstance(default, tuple):
            default = ",".join(f"{item:g}" if isinstance(item, float) else item for item in default)
        shown = "" if default is None or default == "" else f"`{default}`"
        lines.append(f"| `{PREFIX}{name.upper()}` | {shown} | {info.description} |")
    return "\n".join(lines)


_PREAMBLE = """# Settings

Made by `make settings` from `streamapp/settings.py`. Times are seconds, sizes bytes. A wrong value
stops start-up with a sentence that names the variable, the value and what is allowed.
"""

if __name__ == "__main__":
    print(_PREAMBLE)
    print(_table())
