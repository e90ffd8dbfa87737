"""JSON over HTTP to one service, with every way it can end mapped to the saga's errors.

What an answer means:

============================  =====================================================
2xx                           done; an empty body is ``{}``
409                           ``Busy``: the same key is being worked on
425, 429                      ``Retryable``: the service did not act on the request
other 4xx, but 408            ``HttpRejected``: definitely refused
everything else               ``Retryable``, in doubt: the service may have acted
============================  =====================================================

Redirects are not followed: they belong to "everything else", since a 303 says that the request
has been acted on. A 2xx whose body is longer than ``MAX_BODY``, breaks off, or is not a JSON
object that the journal can keep is ``Retryable`` and in doubt too: the service acted, but what
it answered is lost, so it is asked again under the same key.

A failure without an answer is in doubt from the moment a connection stood: only what happens
before it (name look-up, connecting, TLS, waiting for a free connection) surely sent nothing.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import quote, unquote, urlsplit

import aiohttp
import orjson
from pydantic import SecretStr
from yarl import URL

from streamapp.services.errors import Busy, Rejected, Retryable
from streamapp.services.excerpt import excerpt

MAX_BODY = 1024 * 1024  # bytes of an answer, unpacked
MAX_CONNECTIONS = 1000  # at the same time; as many messages are worked on by default
MAX_RETRY_AFTER = 86_400.0  # seconds

_CHUNK = 64 * 1024
_PATH_SAFE = "/%:@!$&'()*+,;=~"
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


class Verdict(Enum):
    """What a status says about the request."""

    DONE = "done"
    BUSY = "busy"
    REJECTED = "rejected"
    NOT_NOW = "not now"  # retryable, and surely without effect
    UNKNOWN = "unknown"  # retryable, and in doubt


_BY_STATUS = {409: Verdict.BUSY, 408: Verdict.UNKNOWN, 425: Verdict.NOT_NOW, 429: Verdict.NOT_NOW}
_BY_CLASS = {2: Verdict.DONE, 4: Verdict.REJECTED}


def classify(status: int) -> Verdict:
    """What an HTTP status says about the request."""
    return _BY_STATUS.get(status) or _BY_CLASS.get(status // 100, Verdict.UNKNOWN)


class HttpRejected(Rejected):
    """A definite rejection, with the ``status`` that told it."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Answer:
    """What a service said, whatever it means.

    ``body`` is None where it is longer than ``MAX_BODY``, and where that of a failure broke off.
    ``retry_after`` is the wait in seconds that was asked for.
    """

    status: int
    body: bytes | None
    retry_after: float | None


class HttpService:
    """A service at ``base_url``, which may hold user and password and a query of its own.

    ``timeout`` limits one call as a whole, in seconds, the wait for a free connection included.
    Error texts name the service, the method and the path below the base URL, and begin a
    refusal's own words; they never hold token, password or query. Raises ``ValueError`` for an
    address or a token that cannot be used.
    """

    def __init__(
        self,
        name: str,
        base_url: str,
        *,
        token: SecretStr | None = None,
        timeout: float = 10.0,
        max_connections: int = MAX_CONNECTIONS,
    ) -> None:
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"the address of {name} must be an http:// or https:// address")
        self.name = name
        self._base = URL(base_url).with_user(None).with_fragment(None)
        self._headers, self._secrets = _credentials(name, token, parts.username, parts.password)
        self._timeout = aiohttp.ClientTimeout(total=timeout)
        self._max_connections = max_connections
        self._session: aiohttp.ClientSession | None = None
        self._closed = False

    async def get(
        self,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        key: str | None = None,
        traceparent: str | None = None,
    ) -> dict[str, Any]:
        """Ask for the JSON object at ``path``; ``params`` are added to the base URL's query."""
        return await self._call("GET", path, None, key, traceparent, params)

    async def post(
        self, path: str, body: bytes, *, key: str, traceparent: str | None = None
    ) -> dict[str, Any]:
        """Send ``body``, JSON already encoded, to ``path``; gives the answer's JSON object."""
        return await self._call("POST", path, body, key, traceparent)

    async def delete(
        self, path: str, *, key: str, traceparent: str | None = None
    ) -> dict[str, Any]:
        """Delete what is at ``path``; gives the answer's JSON object."""
        return await self._call("DELETE", path, None, key, traceparent)

    async def close(self) -> None:
        """Close all connections. Calls under way fail, and so does any later one."""
        self._closed = True
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def exchange(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        key: str | None = None,
        traceparent: str | None = None,
        params: Mapping[str, str] | None = None,
    ) -> Answer:
        """One request and its answer, unjudged. Raises ``Retryable`` where there is none, or where
        the body of a success breaks off."""
        what = f"{self.name}: {method} {path}"
        if self._closed:
            raise Retryable(f"{what}: the client is closed", in_doubt=False)
        headers = {}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if key is not None:
            headers["Idempotency-Key"] = key
        # It comes from outside with the message, so anything else must not become a header.
        if traceparent is not None and _TRACEPARENT.fullmatch(traceparent):
            headers["traceparent"] = traceparent
        progress = SimpleNamespace(connected=False)
        try:
            async with self._opened().request(
                method,
                self._url(path, params),
                data=body,
                headers=headers,
                allow_redirects=False,
                trace_request_ctx=progress,
            ) as response:
                return await _answer(response)
        except TimeoutError:
            error = f"{what}: no answer within {self._timeout.total:g} s"
        except (aiohttp.ClientError, OSError) as cause:
            error = f"{what}: {_describe(cause)}"
        # Outside of the handlers: the text of a cause may show the URL with its query.
        raise Retryable(error, in_doubt=progress.connected)

    def shown(self, text: str) -> str:
        """What may be told of a service's words: their beginning, without token and password."""
        return excerpt(text, self._secrets)

    async def _call(
        self,
        method: str,
        path: str,
        body: bytes | None,
        key: str | None,
        traceparent: str | None,
        params: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        answer = await self.exchange(
            method, path, body, key=key, traceparent=traceparent, params=params
        )
        what = f"{self.name}: {method} {path}"
        verdict = classify(answer.status)
        if verdict is Verdict.DONE:
            return _json_object(what, answer.body)
        said = self.shown((answer.body or b"")[:_CHUNK].decode("utf-8", "replace"))
        error = f"{what}: status {answer.status}" + (f": {said}" if said else "")
        if verdict is Verdict.BUSY:
            raise Busy(error)
        if verdict is Verdict.REJECTED:
            raise HttpRejected(error, answer.status)
        raise Retryable(error, in_doubt=verdict is Verdict.UNKNOWN, retry_after=answer.retry_after)

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            tracing = aiohttp.TraceConfig()
            tracing.on_connection_create_end.append(_connected)
            tracing.on_connection_reuseconn.append(_connected)
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self._max_connections),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers=self._headers,
                timeout=self._timeout,
                trace_configs=[tracing],
            )
        return self._session

    def _url(self, path: str, params: Mapping[str, str] | None) -> URL:
        # "?" and "#" are quoted: a path never becomes a query.
        below = quote(path.lstrip("/"), safe=_PATH_SAFE)
        base = self._base.raw_path.rstrip("/")
        url = self._base.with_path(f"{base}/{below}", keep_query=True, encoded=True)
        return url.extend_query(params) if params else url


def retry_after(value: str | None, now: datetime) -> float | None:
    """Seconds that a ``Retry-After`` header asks for, given as seconds or as a date; at most
    ``MAX_RETRY_AFTER``, and None where it says nothing that is understood."""
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        return min(float(value), MAX_RETRY_AFTER)
    try:
        until = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    if until.tzinfo is None:
        until = until.replace(tzinfo=UTC)
    return min(max((until - now).total_seconds(), 0.0), MAX_RETRY_AFTER)


def _credentials(
    name: str, token: SecretStr | None, user: str | None, password: str | None
) -> tuple[dict[str, str], tuple[str, ...]]:
    """The header that authorises, and what must never be shown."""
    bearer = token.get_secret_value().strip() if token else ""
    if bearer:
        if not (bearer.isascii() and bearer.isprintable()):
            raise ValueError(f"the token of {name} has characters that no header can hold")
        return {"Authorization": f"Bearer {bearer}"}, (bearer,)
    if user is None:
        return {}, ()
    secret = unquote(password or "")
    basic = b64encode(f"{unquote(user)}:{secret}".encode()).decode()
    return {"Authorization": f"Basic {basic}"}, (basic, secret)


async def _connected(
    session: aiohttp.ClientSession, context: SimpleNamespace, params: object
) -> None:
    context.trace_request_ctx.connected = True


async def _answer(response: aiohttp.ClientResponse) -> Answer:
    body: bytes | None = None
    if classify(response.status) is Verdict.DONE:
        body = await _read(response)
    else:
        # The status alone decides: a broken body must not turn a refusal into a doubt.
        with suppress(aiohttp.ClientError, OSError, TimeoutError):
            body = await _read(response)
    wait = retry_after(response.headers.get("Retry-After"), datetime.now(UTC))
    return Answer(response.status, body, wait)


async def _read(response: aiohttp.ClientResponse) -> bytes | None:
    """The body; None when it is longer than ``MAX_BODY``, and its connection is given up."""
    body = bytearray()
    async for chunk in response.content.iter_chunked(_CHUNK):
        body += chunk
        if len(body) > MAX_BODY:
            response.close()
            return None
    return bytes(body)


def _json_object(what: str, body: bytes | None) -> dict[str, Any]:
    if body is None:
        raise Retryable(f"{what}: the answer is longer than {MAX_BODY} bytes", in_doubt=True)
    if not body.strip():
        return {}
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        value = None
    if not isinstance(value, dict) or (rb"\u0000" in body and _holds_nul(value)):
        raise Retryable(f"{what}: the answer is no JSON object that can be kept", in_doubt=True)
    return cast(dict[str, Any], value)


def _holds_nul(value: object) -> bool:
    """Whether a string within has a NUL, which PostgreSQL cannot store."""
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, str) and "\0" in item:
            return True
        if isinstance(item, dict):
            pending += item.keys()
            pending += item.values()
        elif isinstance(item, list):
            pending += item
    return False


def _describe(cause: BaseException) -> str:
    """The kind of a failure, and what the system says; the rest of its text may hold a URL."""
    said = getattr(cause, "strerror", None)
    return f"{type(cause).__name__}: {excerpt(said)}" if said else type(cause).__name__
