"""The HTTP client against a real server that misbehaves in every way it knows."""

from __future__ import annotations

import asyncio
import gzip
import socket
import traceback
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from aiohttp.test_utils import TestServer
from pydantic import SecretStr

from streamapp.services.errors import Busy, Rejected, Retryable, ServiceError
from streamapp.services.http import (
    MAX_BODY,
    MAX_RETRY_AFTER,
    HttpRejected,
    HttpService,
    Verdict,
    classify,
    retry_after,
)
from tests.services.servers import TOKEN, Service

KEY = "0a1b2c3d-key"
TRACEPARENT = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
NOW = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)


async def post(service: HttpService) -> dict[str, Any]:
    return await service.post("/orders", b'{"quantity": 2}', key=KEY)


async def failure(service: HttpService) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        await post(service)
    shown = "".join(traceback.format_exception(caught.value))
    for secret in (TOKEN, "pass word", "pass%20word", "api_key", "hidden"):
        assert secret not in shown
    return caught.value


async def in_doubt(service: HttpService) -> bool:
    error = await failure(service)
    assert isinstance(error, Retryable)
    return error.in_doubt


# What is sent


async def test_a_post_carries_key_trace_and_token(service: HttpService, far: Service) -> None:
    body = b'{"quantity":  2, "product": "caf\xc3\xa9"}'
    answer = await service.post("/orders", body, key=KEY, traceparent=TRACEPARENT)
    assert answer == {"order_id": "o-1"}
    (request,) = far.requests
    assert (request.method, request.path) == ("POST", "/api/orders")
    assert far.bodies == [body]
    assert request.headers["Content-Type"] == "application/json"
    assert request.headers["Idempotency-Key"] == KEY
    assert request.headers["traceparent"] == TRACEPARENT
    assert request.headers["Authorization"] == f"Bearer {TOKEN}"


async def test_get_and_delete(service: HttpService, far: Service) -> None:
    assert await service.get("stock/x y?z", params={"size": "a&b"}) == {"order_id": "o-1"}
    assert await service.delete("/orders/1", key=KEY) == {"order_id": "o-1"}
    get, delete = far.requests
    assert (get.method, get.path, dict(get.query)) == ("GET", "/api/stock/x y?z", {"size": "a&b"})
    assert "Idempotency-Key" not in get.headers
    assert "traceparent" not in get.headers
    assert (delete.method, delete.path) == ("DELETE", "/api/orders/1")
    assert delete.headers["Idempotency-Key"] == KEY


@pytest.mark.parametrize("bad", ["", "x", TRACEPARENT + "\r\nX-Evil: 1", TRACEPARENT.upper()])
async def test_a_malformed_traceparent_is_left_out(
    service: HttpService, far: Service, bad: str
) -> None:
    await service.post("/orders", b"{}", key=KEY, traceparent=bad)
    assert "traceparent" not in far.requests[0].headers


async def test_user_and_query_of_the_base_url(server: TestServer, far: Service) -> None:
    url = f"http://us%40er:pass%20word@127.0.0.1:{server.port}/base/?api_key=hidden"
    service = HttpService("order", url)
    try:
        await service.get("/stock", params={"size": "1"})
        far.status, far.body = 422, b"pass word and dXNAZXI6cGFzcyB3b3Jk"
        refused = await failure(service)
        far.behaviour = "close"
        await failure(service)
    finally:
        await service.close()
    first = far.requests[0]
    assert (first.path, dict(first.query)) == ("/base/stock", {"api_key": "hidden", "size": "1"})
    assert first.headers["Authorization"] == "Basic dXNAZXI6cGFzcyB3b3Jk"
    assert str(refused) == "order: POST /orders: status 422: *** and ***"


# What an answer means

DONE, BUSY, REJECTED, NOT_NOW, UNKNOWN = Verdict
MEANINGS = {
    200: DONE,
    201: DONE,
    202: DONE,
    204: DONE,
    301: UNKNOWN,
    302: UNKNOWN,
    303: UNKNOWN,
    304: UNKNOWN,
    307: UNKNOWN,
    400: REJECTED,
    401: REJECTED,
    403: REJECTED,
    404: REJECTED,
    408: UNKNOWN,
    409: BUSY,
    410: REJECTED,
    422: REJECTED,
    425: NOT_NOW,
    429: NOT_NOW,
    451: REJECTED,
    500: UNKNOWN,
    502: UNKNOWN,
    503: UNKNOWN,
    504: UNKNOWN,
    599: UNKNOWN,
    600: UNKNOWN,
}


@pytest.mark.parametrize("status", MEANINGS)
def test_classification(status: int) -> None:
    assert classify(status) is MEANINGS[status]


@pytest.mark.parametrize("status", [s for s in MEANINGS if s < 600])
async def test_each_status(service: HttpService, far: Service, status: int) -> None:
    far.status = status
    far.body = b"" if status in (204, 304) else b'{"order_id": "o-1"}'
    far.headers = {"Location": "/api/elsewhere"} if 300 < status < 309 else {}
    match MEANINGS[status]:
        case Verdict.DONE:
            assert await post(service) == ({} if status == 204 else {"order_id": "o-1"})
        case Verdict.BUSY:
            assert isinstance(await failure(service), Busy)
        case Verdict.REJECTED:
            error = await failure(service)
            assert isinstance(error, HttpRejected)
            assert error.status == status
        case Verdict.NOT_NOW:
            assert await in_doubt(service) is False
        case Verdict.UNKNOWN:
            assert await in_doubt(service) is True
    assert len(far.requests) == 1  # no redirect is followed, nothing is sent twice


async def test_a_refusal_is_told_on_one_short_line(service: HttpService, far: Service) -> None:
    far.status = 422
    far.body = f"no such product\r\n{TOKEN}\x00".encode() + b"\xff" + b"x" * 1000
    error = await failure(service)
    assert str(error).startswith("order: POST /orders: status 422: no such product *** \ufffdxxx")
    assert len(str(error)) < 300


@pytest.mark.parametrize("behaviour", ["close half-way", "hang half-way"])
async def test_a_broken_body_does_not_soften_a_refusal(
    server: TestServer, far: Service, behaviour: str
) -> None:
    far.status, far.behaviour = 422, behaviour
    service = HttpService("order", str(server.make_url("/")), timeout=1.0)
    assert isinstance(await failure(service), Rejected)
    await service.close()


# Bodies of a 2xx


@pytest.mark.parametrize("body", [b"", b"  \r\n"])
async def test_an_empty_body_is_an_empty_object(
    service: HttpService, far: Service, body: bytes
) -> None:
    far.body = body
    assert await post(service) == {}


@pytest.mark.parametrize(
    "body",
    [
        b"<html>",
        b"[1]",
        b'"text"',
        b"null",
        b'{"a": NaN}',
        b'{"a": 1',
        b'{"a": "\xff"}',
        rb'{"a": "\ud800"}',
        rb'{"a": [{"b": "x\u0000"}]}',
        rb'{"\u0000": 1}',
    ],
)
async def test_garbage_is_in_doubt(service: HttpService, far: Service, body: bytes) -> None:
    far.body = body
    assert await in_doubt(service) is True


async def test_an_escaped_backslash_is_no_nul(service: HttpService, far: Service) -> None:
    far.body = rb'{"a": ["\\u0000", 1, {"b": null}]}'
    assert await post(service) == {"a": [r"\u0000", 1, {"b": None}]}


def object_of(size: int) -> bytes:
    return b'{"a": "' + b"x" * (size - 9) + b'"}'


async def test_a_body_at_the_limit_is_read(service: HttpService, far: Service) -> None:
    far.body = object_of(MAX_BODY)
    assert len(far.body) == MAX_BODY
    assert len((await post(service))["a"]) == MAX_BODY - 9


@pytest.mark.parametrize("packed", [False, True])
async def test_a_body_beyond_the_limit_is_in_doubt(
    service: HttpService, far: Service, packed: bool
) -> None:
    far.body = object_of(MAX_BODY + 1)
    if packed:
        far.body, far.headers = gzip.compress(far.body), {"Content-Encoding": "gzip"}
    assert "longer than" in str(error := await failure(service))
    assert isinstance(error, Retryable)
    assert error.in_doubt
    far.body, far.headers = b"{}", {}
    assert await post(service) == {}  # the next call is not disturbed


async def test_a_huge_refusal_is_a_refusal(service: HttpService, far: Service) -> None:
    far.status, far.body = 400, b"x" * (MAX_BODY + 1)
    assert isinstance(await failure(service), Rejected)


# No answer


@pytest.mark.parametrize("behaviour", ["hang", "close", "close half-way", "hang half-way"])
async def test_no_whole_answer_is_in_doubt(
    server: TestServer, far: Service, behaviour: str
) -> None:
    far.behaviour = behaviour
    service = HttpService("order", str(server.make_url("/?api_key=hidden")), timeout=1.0)
    assert await in_doubt(service) is True
    await service.close()
    assert len(far.requests) == 1


async def test_a_reused_connection_that_breaks_is_in_doubt(
    service: HttpService, far: Service
) -> None:
    await post(service)
    far.behaviour = "close"
    assert await in_doubt(service) is True


@pytest.mark.parametrize("answer", [b"garbage\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: x"])
async def test_no_http_is_in_doubt(answer: bytes) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer + b"\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    service = HttpService("order", f"http://127.0.0.1:{port}/?api_key=hidden")
    assert await in_doubt(service) is True
    await service.close()
    server.close()


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_a_refused_connection_is_not_in_doubt() -> None:
    url = f"http://user:pass%20word@127.0.0.1:{closed_port()}/x?api_key=hidden"
    service = HttpService("order", url)
    assert await in_doubt(service) is False
    await service.close()


async def test_an_unknown_host_is_not_in_doubt() -> None:
    service = HttpService("order", "http://order.invalid/?api_key=hidden")
    assert await in_doubt(service) is False
    await service.close()


async def test_a_failed_tls_handshake_is_not_in_doubt(server: TestServer) -> None:
    service = HttpService("order", f"https://127.0.0.1:{server.port}/")
    assert await in_doubt(service) is False
    await service.close()


async def test_a_tls_handshake_that_hangs_is_not_in_doubt() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"https://127.0.0.1:{silent.getsockname()[1]}/"
        service = HttpService("order", url, timeout=0.2)
        assert await in_doubt(service) is False
        await service.close()


async def test_waiting_for_a_free_connection_is_not_in_doubt(
    server: TestServer, far: Service
) -> None:
    far.behaviour = "hang"
    url = str(server.make_url("/"))
    service = HttpService("order", url, timeout=0.5, max_connections=1)
    errors = await asyncio.gather(post(service), post(service), return_exceptions=True)
    assert sorted(getattr(error, "in_doubt", None) or False for error in errors) == [False, True]
    assert all(isinstance(error, Retryable) for error in errors)
    await service.close()


# Retry-After


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("7", 7.0),
        (" 0 ", 0.0),
        ("9" * 400, MAX_RETRY_AFTER),
        (format_datetime(NOW + timedelta(seconds=90), usegmt=True), 90.0),
        (format_datetime(NOW - timedelta(seconds=90), usegmt=True), 0.0),
        (format_datetime(NOW + timedelta(days=90), usegmt=True), MAX_RETRY_AFTER),
        ("Wed, 02 Jan 2030 03:04:15 -0000", 10.0),
        ("-1", None),
        ("1.5", None),
        ("\u0661", None),
        ("soon", None),
        ("", None),
        ("Wed, 99 Jan 2030 03:04:15 GMT", None),
    ],
)
def test_retry_after(value: str | None, seconds: float | None) -> None:
    assert retry_after(value, NOW) == seconds


@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_is_handed_on(service: HttpService, far: Service, status: int) -> None:
    far.status, far.headers = status, {"Retry-After": "17"}
    error = await failure(service)
    assert isinstance(error, Retryable)
    assert error.retry_after == 17


# Life


async def test_a_closed_client_calls_nobody(service: HttpService, far: Service) -> None:
    await post(service)
    await service.close()
    await service.close()
    assert await in_doubt(service) is False
    assert len(far.requests) == 1


async def test_cookies_are_not_kept(server: TestServer, far: Service) -> None:
    # By name: cookies of bare addresses are never kept.
    service = HttpService("order", f"http://localhost:{server.port}/")
    far.headers = {"Set-Cookie": "session=1"}
    await post(service)
    await post(service)
    await service.close()
    assert "Cookie" not in far.requests[1].headers


@pytest.mark.parametrize("url", ["", "ftp://order", "http://", "order:80"])
def test_impossible_addresses_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match="http"):
        HttpService("order", url)


def test_an_impossible_token_is_refused_and_not_shown() -> None:
    with pytest.raises(ValueError, match="token of order") as caught:
        HttpService("order", "http://order", token=SecretStr("top\r\nsecret"))
    assert "secret" not in str(caught.value)
