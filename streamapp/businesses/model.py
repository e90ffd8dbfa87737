"""What a business sets for itself: the document of ``streamapp business set``, checked as a whole.

Every field is optional; what is left out is as the program's own settings have it. Errors name the
field by its path (``texts.faq.de``) and say what is allowed; secrets are in none of them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from streamapp.actions.templates import MAX_TEXT, TemplateError, check, is_template
from streamapp.actions.topics import is_topic
from streamapp.service_settings import TEAMS

MASK: Final = "**********"
MAX_DOCUMENT = 262_144  # bytes
# Whom tasks are assigned to; only those in TEAMS are also written to.
ASSIGNEES: Final = frozenset({*TEAMS, "order_processing_team", "technical_team"})
DAYS: Final = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")

_language = re.compile(r"[a-z]{2,3}(-[a-z0-9]{2,8})*").fullmatch
_hours = re.compile(
    r"([01][0-9]|2[0-3]):[0-5][0-9]-(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)"
).fullmatch
_address = re.compile(r"[^\s@<>,;\x00-\x1f\x7f]+@[^\s@<>,;\x00-\x1f\x7f]+").fullmatch


class InvalidBusiness(Exception):
    """A document that is not accepted: ``problems`` are (field, what is wrong) pairs."""

    def __init__(self, problems: list[tuple[str, str]]) -> None:
        super().__init__("\n".join(f"{field}: {text}" for field, text in problems))
        self.problems = problems


def _is_language(value: str) -> str:
    value = value.strip().lower().replace("_", "-")
    if not _language(value):
        raise ValueError("must be the code of a language, as en or de-at")
    return value


def _is_text(value: str) -> str:
    if not value.strip() or len(value) > MAX_TEXT or "\0" in value:
        raise ValueError(f"a text has 1 to {MAX_TEXT} characters, and no NUL")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("a text has no half of a surrogate pair") from None
    if is_template(value):
        try:
            check(value)
        except TemplateError as error:
            raise ValueError(f"this template is not accepted: {error}") from None
    return value


def _is_line(value: str) -> str:
    value = value.strip()
    if not (1 <= len(value) <= 200 and value.isprintable()):
        raise ValueError("must be 1 to 200 printable characters on one line")
    return value


def _is_address(value: str) -> str:
    value = value.strip()
    if len(value) > 254 or not _address(value):
        raise ValueError("must be one e-mail address")
    return value


def _is_http(value: str) -> str:
    try:
        parts = urlsplit(value)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or not value.isprintable() or " " in value:
        raise ValueError("must be an http:// or https:// address")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must have no user and password in it: give a token")
    return value.rstrip("/")


def _is_webhook(value: SecretStr) -> SecretStr:
    _is_http(value.get_secret_value())
    return value


def _is_token(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    if text == MASK:
        raise ValueError("is masked, and nothing is stored that could be kept")
    if not (1 <= len(text) <= 4096 and text.isascii() and text.isprintable()):
        raise ValueError("must be 1 to 4096 printable ASCII characters")
    return value


Language = Annotated[str, AfterValidator(_is_language)]
Text = Annotated[str, AfterValidator(_is_text)]
Line = Annotated[str, AfterValidator(_is_line)]
Address = Annotated[str, AfterValidator(_is_address)]
Webhook = Annotated[SecretStr, AfterValidator(_is_webhook)]
Token = Annotated[SecretStr, AfterValidator(_is_token)]
Url = Annotated[str, StringConstraints(max_length=2_000), AfterValidator(_is_http)]
ServiceName = Literal["order", "inventory", "pricing", "calendar"]
Switch = Annotated[bool, Field(strict=True)]


def _one_of(what: str, names: Collection[str], given: Mapping[str, Any]) -> None:
    for name in given:
        if name not in names:
            raise ValueError(f"{name!r} is no {what}; there are {', '.join(names)}")


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Channel(_Part):
    """Where a team is written to."""

    email: Address | None = None
    slack_webhook_url: Webhook | None = None


class Service(_Part):
    """A service of this business's own."""

    url: Url
    token: Token | None = None


class BusinessSettings(_Part):
    """All that a business sets for itself."""

    name: Line | None = None
    language: Language = "en"
    timezone: str | None = None
    texts: dict[str, dict[Language, Text]] = {}
    channels: dict[str, Channel] = {}
    slack_webhook_url: Webhook | None = None  # of the teams that have none of their own
    working_hours: dict[str, list[str]] = {}
    team_names: dict[str, Line] = {}
    services: dict[ServiceName, Service] = {}
    actions: dict[str, Switch] = {}  # false: is not done for this business
    apology: Switch = True
    suggested_response: Switch | None = None

    @model_validator(mode="before")
    @classmethod
    def _texts_of_one_language(cls, given: Any) -> Any:
        """A text alone is one in the business's language."""
        if isinstance(given, dict) and isinstance(given.get("texts"), dict):
            language = given.get("language", "en")
            texts = {
                topic: {language: text} if isinstance(text, str) else text
                for topic, text in given["texts"].items()
            }
            return {**given, "texts": texts}
        return given

    @field_validator("timezone")
    @classmethod
    def _timezone(cls, value: str | None) -> str | None:
        try:
            if value is not None:
                ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError("must be the name of a time zone, as Europe/Berlin") from None
        return value

    @field_validator("texts")
    @classmethod
    def _topics(cls, value: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        known = (info.context or {}).get("topics")
        for topic in value:
            if not is_topic(topic) or (known is not None and topic not in known):
                there_are = f"; there are {', '.join(sorted(known))}" if known else ""
                raise ValueError(f"{topic!r} is no topic{there_are}")
        return value

    @field_validator("channels")
    @classmethod
    def _teams(cls, value: dict[str, Any]) -> dict[str, Any]:
        _one_of("team that is written to", sorted(TEAMS), value)
        return value

    @field_validator("team_names")
    @classmethod
    def _names(cls, value: dict[str, Any]) -> dict[str, Any]:
        _one_of("team", sorted(ASSIGNEES), value)
        return value

    @field_validator("working_hours")
    @classmethod
    def _days(cls, value: dict[str, list[str]]) -> dict[str, list[str]]:
        _one_of("day", DAYS, value)
        for day, spans in value.items():
            end = ""
            for span in spans:
                begin = span.partition("-")[0]
                if not _hours(span) or not end <= begin < span.partition("-")[2]:
                    raise ValueError(f"{day}: must be spans one after the other, as 09:00-17:00")
                end = span.partition("-")[2]
        return value

    @field_validator("actions")
    @classmethod
    def _actions(cls, value: dict[str, bool], info: ValidationInfo) -> dict[str, bool]:
        known = (info.context or {}).get("actions")
        for name in value:
            if known is not None and name not in known:
                raise ValueError(f"{name!r} is no action (`streamapp actions list` shows them)")
        return value


def parse(
    document: Any,
    *,
    actions: Collection[str] | None = None,
    topics: Collection[str] | None = None,
) -> BusinessSettings:
    """The settings in a document; ``actions`` and ``topics`` are those that there are, None where
    any may be. Raises ``InvalidBusiness``."""
    if not isinstance(document, dict):
        raise InvalidBusiness([("(document)", "must be an object")])
    try:
        return BusinessSettings.model_validate(
            document, context={"actions": actions, "topics": topics}
        )
    except ValidationError as error:
        problems = [
            (
                ".".join(str(part) for part in problem["loc"] if part != "[key]") or "(document)",
                str(problem["msg"]).removeprefix("Value error, "),
            )
            for problem in error.errors(include_url=False, include_input=False)
        ]
        raise InvalidBusiness(problems) from None


def document_of(settings: BusinessSettings, *, reveal: bool) -> dict[str, Any]:
    """What was set, as JSON; secrets masked unless they are to be revealed."""
    return {
        name: _shown(value, reveal)
        for name, value in settings.model_dump(exclude_unset=True).items()
    }


def _shown(value: Any, reveal: bool) -> Any:
    if isinstance(value, SecretStr):
        return value.get_secret_value() if reveal else MASK
    if isinstance(value, dict):
        return {name: _shown(item, reveal) for name, item in value.items()}
    return value


def with_secrets_of(document: Any, stored: Any) -> Any:
    """The document with each masked value as it is stored: what ``get`` shows can be edited and
    set again. A masked value that nothing is stored for stays, and is refused."""
    if isinstance(document, dict):
        known = stored if isinstance(stored, dict) else {}
        return {name: with_secrets_of(item, known.get(name)) for name, item in document.items()}
    return stored if document == MASK and isinstance(stored, str) else document
