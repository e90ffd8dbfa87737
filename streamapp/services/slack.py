"""Slack by incoming webhooks: one message a second for each, ``Retry-After`` honoured.

What an answer means:

==================  =====================================================================
2xx                 done
429                 ``NotNow``: nobody sends there before ``Retry-After`` is over
other 4xx, but 408  ``Rejected``: the channel is gone or archived, the text not accepted
everything else     ``Retryable``, in doubt: the message may be in the channel
==================  =====================================================================

Slack knows no idempotency key: a message in doubt that is repeated may appear twice, with the same
reference at its end. Webhook addresses are secrets, and in no text of an error.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Mapping
from datetime import UTC, datetime

import aiohttp
from pydantic import SecretStr
from slack_sdk.webhook.async_client import AsyncWebhookClient

from streamapp.services.errors import NotNow, Rejected, Retryable
from streamapp.services.excerpt import excerpt
from streamapp.services.http import Verdict, classify, retry_after
from streamapp.services.pace import Pace

MAX_CONNECTIONS = 20  # at the same time
INTERVAL = 1.0  # seconds between messages to one webhook, which is what Slack allows
HELD = 1.0  # seconds that a call waits for its turn; more is waited for outside of it
LONGEST = 30.0  # seconds; a turn further away is not reserved
MAX_BODY = 65_536  # bytes of an answer that are read; Slack's have two
DEFAULT_PAUSE = 30.0  # seconds after a 429 that names none
_TOO_MANY = 429

# The library logs addresses, which are secrets.
_silent = logging.getLogger("streamapp.services.slack.library")
_silent.setLevel(logging.CRITICAL)


class Slack:
    """Sends to the ``webhooks`` of teams, by name of the team.

    ``timeout`` limits one message as a whole, in seconds, without the wait for its turn.
    """

    def __init__(
        self,
        webhooks: Mapping[str, SecretStr],
        timeout: float = 10.0,
        *,
        tls_context: ssl.SSLContext | None = None,
    ) -> None:
        self._webhooks = {team: url.get_secret_value() for team, url in webhooks.items()}
        self._timeout = aiohttp.ClientTimeout(total=timeout)
        self._tls_context = tls_context
        self._pace = Pace(INTERVAL, LONGEST)
        self._session: aiohttp.ClientSession | None = None
        self._closed = False

    async def send(
        self, team: str, text: str, *, key: str, webhook: SecretStr | None = None
    ) -> None:
        """Put one message into the team's channel, or into that of ``webhook``, with the key as its
        reference.

        Raises ``NotNow`` before the team's turn, ``Rejected`` where Slack refuses it for good or
        the team has no webhook, else ``Retryable``.
        """
        url = webhook.get_secret_value() if webhook is not None else self._webhooks.get(team)
        if url is None:
            raise Rejected(f"slack: {excerpt(team)} has no webhook")
        held = 0.0
        while (wait := self._pace.wait(url, key)) > 0:
            held += wait
            if held > HELD:
                raise NotNow("slack: one message a second, and others are first", wait)
            await asyncio.sleep(wait)
        if self._closed:
            raise Retryable("slack: the client is closed", in_doubt=False)
        await self._send(url, f"{text}\n_Reference: {key}_", team)

    async def close(self) -> None:
        """Close all connections. Messages under way fail, and so does any later one."""
        self._closed = True
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _send(self, url: str, text: str, team: str) -> None:
        client = AsyncWebhookClient(
            url,
            ssl=self._tls_context,
            session=self._opened(),
            logger=_silent,
            retry_handlers=[],  # attempts are the saga's
        )
        client.proxy = None  # from the environment; no other service uses that
        what = f"slack: message to {team}"
        try:
            response = await client.send(text=text, unfurl_links=False, unfurl_media=False)
        except aiohttp.ClientConnectorError as error:
            failure = Retryable(f"{what}: {type(error).__name__}", in_doubt=False)
        except TimeoutError:
            failure = Retryable(
                f"{what}: no answer within {self._timeout.total:g} s", in_doubt=True
            )
        except (aiohttp.ClientError, OSError, ValueError) as error:
            failure = Retryable(f"{what}: {type(error).__name__}", in_doubt=True)
        else:
            self._judge(what, url, response.status_code, response.body, response.headers)
            return
        # Outside of the handlers: the text of a cause may show the address.
        raise failure

    def _judge(
        self, what: str, url: str, status: int, body: str, headers: Mapping[str, str]
    ) -> None:
        verdict = classify(status)
        if verdict is Verdict.DONE:
            return
        error = f"{what}: status {status}: {excerpt(body, (url,))}"
        pause = retry_after(headers.get("Retry-After"), datetime.now(UTC))
        if status == _TOO_MANY:
            seconds = DEFAULT_PAUSE if pause is None else max(pause, INTERVAL)
            self._pace.hold(url, seconds)
            raise NotNow(error, seconds)
        if verdict in (Verdict.REJECTED, Verdict.BUSY):
            raise Rejected(error)
        raise Retryable(error, in_doubt=verdict is Verdict.UNKNOWN, retry_after=pause)

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=MAX_CONNECTIONS),
                timeout=self._timeout,
                cookie_jar=aiohttp.DummyCookieJar(),
                response_class=_BoundedResponse,
            )
        return self._session


class _BoundedResponse(aiohttp.ClientResponse):
    """The library reads an answer as a whole: of a longer one, only the beginning is there."""

    async def read(self) -> bytes:
        if self._body is None:
            found = bytearray()
            async for chunk in self.content.iter_chunked(MAX_BODY):
                found += chunk
                if len(found) >= MAX_BODY:
                    self.close()
                    break
            self._body = bytes(found[:MAX_BODY])
        return self._body
