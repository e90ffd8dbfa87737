"""The settings of external services, each optional, and of what customers are told."""

from __future__ import annotations

import json
from typing import Annotated, Any
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, Field, SecretStr, field_validator, model_validator

from streamapp.actions.topics import TOPICS

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
SecondsOrZero = Annotated[float, Field(ge=0, allow_inf_nan=False)]

# Who can be notified, as tasks are assigned: the beginning of their settings' names.
TEAMS = {
    "sales_team": "sales",
    "sales_manager": "sales_manager",
    "supervisor": "supervisor",
    "support_team": "support",
    "fulfillment_team": "fulfillment",
    "procurement_team": "procurement",
    "scheduling_team": "scheduling",
    "agent": "agent",
}
MAX_TEXT = 4_096  # characters of a text for customers


class ServiceSettings(BaseModel):
    """A part of ``settings.Settings``: services, channels of teams, texts."""

    order_service_url: str | None = Field(
        None, repr=False, description="order service; none: tasks only"
    )
    order_service_token: SecretStr | None = Field(None, description="bearer token for it")
    order_service_timeout: Seconds = Field(10.0, description="limit of one call to it")
    inventory_service_url: str | None = Field(
        None, repr=False, description="inventory service; none: people look things up"
    )
    inventory_service_token: SecretStr | None = Field(None, description="bearer token for it")
    inventory_service_timeout: Seconds = Field(10.0, description="limit of one call to it")
    pricing_service_url: str | None = Field(
        None, repr=False, description="pricing service; none: people look things up"
    )
    pricing_service_token: SecretStr | None = Field(None, description="bearer token for it")
    pricing_service_timeout: Seconds = Field(10.0, description="limit of one call to it")
    calendar_service_url: str | None = Field(
        None, repr=False, description="calendar service; none: people keep the calendar"
    )
    calendar_service_token: SecretStr | None = Field(None, description="bearer token for it")
    calendar_service_timeout: Seconds = Field(10.0, description="limit of one call to it")
    smtp_url: SecretStr | None = Field(
        None, description="`smtp://` or `smtps://`, with user and password; none: no e-mail"
    )
    smtp_timeout: Seconds = Field(10.0, description="limit of one delivery")
    mail_from: str = Field("streamapp@localhost", description="sender of e-mail")
    sales_email: str | None = Field(None, description="address of the sales team")
    sales_manager_email: str | None = Field(None, description="address of the sales manager")
    supervisor_email: str | None = Field(None, description="address of the supervisor")
    support_email: str | None = Field(None, description="address of the support team")
    fulfillment_email: str | None = Field(None, description="address of the fulfillment team")
    procurement_email: str | None = Field(None, description="address of the procurement team")
    scheduling_email: str | None = Field(None, description="address of the scheduling team")
    agent_email: str | None = Field(None, description="address of the agents")
    slack_webhook_url: SecretStr | None = Field(
        None, description="Slack channel of the teams that have none of their own; none: no Slack"
    )
    sales_slack_webhook_url: SecretStr | None = Field(
        None, description="Slack channel of the sales team"
    )
    sales_manager_slack_webhook_url: SecretStr | None = Field(
        None, description="Slack channel of the sales manager"
    )
    supervisor_slack_webhook_url: SecretStr | None = Field(
        None, description="Slack channel of the supervisor"
    )
    support_slack_webhook_url: SecretStr | None = Field(
        None, description="Slack channel of the support team"
    )
    fulfillment_slack_webhook_url: SecretStr | None = Field(
        None, description="Slack channel of the fulfillment team"
    )
    procurement_slack_webhook_url: SecretStr | None = Field(
        None, description="Slack channel of the procurement team"
    )
    scheduling_slack_webhook_url: SecretStr | None = Field(
        None, description="Slack channel of the scheduling team"
    )
    agent_slack_webhook_url: SecretStr | None = Field(
        None, description="Slack channel of the agents"
    )
    slack_timeout: Seconds = Field(10.0, description="limit of one message to Slack")
    whatsapp_api_url: str | None = Field(
        None,
        repr=False,
        description="WhatsApp Cloud API with its version, as `https://graph.facebook.com/v23.0`; "
        "none: nobody sends the replies",
    )
    whatsapp_phone_number_id: str | None = Field(
        None, pattern=r"^[A-Za-z0-9_-]*$", description="id of the number that replies come from"
    )
    whatsapp_access_token: SecretStr | None = Field(None, description="token for it")
    whatsapp_app_secret: SecretStr | None = Field(
        None, description="signs the calls of the status webhook; none: there is no such page"
    )
    whatsapp_verify_token: SecretStr | None = Field(
        None, description="what WhatsApp shows when the webhook is entered there"
    )
    whatsapp_timeout: Seconds = Field(10.0, description="limit of one message to WhatsApp")
    whatsapp_rate: Annotated[float, Field(gt=0, le=1000)] = Field(
        80.0, description="messages a second from the number; each worker's own"
    )
    whatsapp_recipient_interval: SecondsOrZero = Field(
        6.0, description="between two messages to one customer"
    )
    whatsapp_max_wait: Seconds = Field(
        3600.0,
        description="how long a reply waits for the account, a circuit or its turn; then it failed",
    )
    texts: dict[str, str] = Field(
        {},
        description="what customers are told, a JSON object of texts by topic "
        "(docs/intents.md names them); a topic without a text: support is asked to tell them",
    )
    timezone: str = Field("UTC", description="of the times that customers name, as Europe/Berlin")

    @field_validator(
        "order_service_url",
        "inventory_service_url",
        "pricing_service_url",
        "calendar_service_url",
        "whatsapp_api_url",
    )
    @classmethod
    def _http(cls, value: str | None) -> str | None:
        if value is None or value == "":
            return None
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("must be an http:// or https:// address")
        return value.rstrip("/")

    @field_validator("smtp_url")
    @classmethod
    def _smtp(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None or value.get_secret_value() == "":
            return None
        parts = urlsplit(value.get_secret_value())
        if parts.scheme not in ("smtp", "smtps") or not parts.hostname:
            raise ValueError("must be an smtp:// or smtps:// address")
        return value

    @field_validator("slack_webhook_url", *(f"{name}_slack_webhook_url" for name in TEAMS.values()))
    @classmethod
    def _webhook(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None or value.get_secret_value() == "":
            return None
        parts = urlsplit(value.get_secret_value())
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("must be an http:// or https:// address")
        return value

    @field_validator(
        "whatsapp_phone_number_id",
        "whatsapp_access_token",
        "whatsapp_app_secret",
        "whatsapp_verify_token",
    )
    @classmethod
    def _empty_is_none(cls, value: SecretStr | str | None) -> SecretStr | str | None:
        given = value.get_secret_value() if isinstance(value, SecretStr) else value
        return value if given else None

    @model_validator(mode="after")
    def _whole_whatsapp(self) -> ServiceSettings:
        named = {
            "API_URL": self.whatsapp_api_url,
            "PHONE_NUMBER_ID": self.whatsapp_phone_number_id,
            "ACCESS_TOKEN": self.whatsapp_access_token,
        }
        missing = [f"STREAMAPP_WHATSAPP_{name}" for name, value in named.items() if not value]
        if 0 < len(missing) < len(named):
            raise ValueError(f"WhatsApp is set in part: {' and '.join(missing)} too, or none of it")
        return self

    @field_validator("texts", mode="before")
    @classmethod
    def _texts(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return json.loads(value or "{}")
        except ValueError:
            raise ValueError("must be a JSON object") from None

    @field_validator("texts")
    @classmethod
    def _usable_texts(cls, value: dict[str, str]) -> dict[str, str]:
        for topic, text in value.items():
            if topic not in TOPICS:
                raise ValueError(f"{topic!r} is no topic; there are {', '.join(sorted(TOPICS))}")
            if not text.strip() or len(text) > MAX_TEXT or "\0" in text:
                raise ValueError(f"{topic}: a text has 1 to {MAX_TEXT} characters, and no NUL")
        return value

    @field_validator("timezone")
    @classmethod
    def _timezone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError("must be the name of a time zone") from None
        return value

    @property
    def sends_replies(self) -> bool:
        """Whether the replies are delivered by us."""
        return self.whatsapp_api_url is not None

    def team_emails(self) -> dict[str, str]:
        """Addresses by team, of those teams that have one."""
        found = {team: getattr(self, f"{name}_email") for team, name in TEAMS.items()}
        return {team: address for team, address in found.items() if address}

    def slack_webhooks(self) -> dict[str, SecretStr]:
        """Slack channels by team, of those teams that have one, be it the one for all."""
        own = {team: getattr(self, f"{name}_slack_webhook_url") for team, name in TEAMS.items()}
        found = {team: url or self.slack_webhook_url for team, url in own.items()}
        return {team: url for team, url in found.items() if url}
