"""The WhatsApp client against a stand-in: the verdict on everything that is documented."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator

import pytest
from pydantic import SecretStr

from streamapp.services.http import HttpService
from streamapp.services.whatsapp import Attempt, WhatsApp
from streamapp.services.whatsapp_codes import Verdict
from tests.support.whatsapp import NUMBER, TOKEN, Cloud, cloud, failure


def client_of(url: str, timeout: float = 5.0) -> WhatsApp:
    return WhatsApp(HttpService("whatsapp", url, token=SecretStr(TOKEN), timeout=timeout), NUMBER)


@pytest.fixture
async def far() -> AsyncIterator[Cloud]:
    async with cloud() as far:
        yield far


async def attempt(far: Cloud, *told: tuple[int, bytes] | str, timeout: float = 5.0) -> Attempt:
    far.script = list(told)
    client = client_of(far.url, timeout)
    try:
        made = await client.send("+49 170 1234567", "Hello", reference="1:m")
    finally:
        await client.close()
    assert TOKEN not in repr(made)
    assert len(far.messages) == 1, "the client itself repeats nothing"
    return made


async def test_a_message_is_taken_under_an_id(far: Cloud) -> None:
    made = await attempt(far)
    assert (made.verdict, made.whatsapp_id) == (Verdict.SENT, "wamid.1")
    assert far.tokens == [f"Bearer {TOKEN}"]
    assert far.messages == [
        {
            "messaging_product": "whatsapp",
            "recipient_type": "individual",
            "to": "+49 170 1234567",
            "type": "text",
            "text": {"preview_url": False, "body": "Hello"},
            "biz_opaque_callback_data": "1:m",
        }
    ]


@pytest.mark.parametrize(
    ("status", "code", "verdict"),
    [
        (401, 0, Verdict.PAUSE),
        (401, 190, Verdict.PAUSE),
        (403, 10, Verdict.PAUSE),
        (403, 230, Verdict.PAUSE),
        (403, 368, Verdict.PAUSE),
        (403, 131031, Verdict.PAUSE),
        (400, 131042, Verdict.PAUSE),
        (400, 131048, Verdict.PAUSE),
        (400, 80007, Verdict.PAUSE),
        (400, 4, Verdict.PAUSE),
        (400, 130429, Verdict.NUMBER_LIMIT),
        (429, 130429, Verdict.NUMBER_LIMIT),
        (429, None, Verdict.NUMBER_LIMIT),
        (400, 131056, Verdict.RECIPIENT_LIMIT),
        (400, 100, Verdict.REJECTED),
        (400, 131009, Verdict.REJECTED),
        (400, 131026, Verdict.REJECTED),
        (400, 131047, Verdict.REJECTED),
        (400, 999999, Verdict.REJECTED),
        (404, None, Verdict.REJECTED),
        (409, None, Verdict.REJECTED),
        (401, None, Verdict.PAUSE),
        (403, None, Verdict.PAUSE),
        (500, 131000, Verdict.RETRY),
        (500, 131016, Verdict.RETRY),
        (503, 2, Verdict.RETRY),
        (425, None, Verdict.RETRY),
        (500, 1, Verdict.UNKNOWN),
        (500, None, Verdict.UNKNOWN),
        (502, None, Verdict.UNKNOWN),
        (408, None, Verdict.UNKNOWN),
        (302, None, Verdict.UNKNOWN),
    ],
)
async def test_the_verdict_goes_by_the_code_and_else_by_the_status(
    far: Cloud, status: int, code: int | None, verdict: Verdict
) -> None:
    made = await attempt(far, (status, failure(code) if code is not None else b"<html>"))
    assert (made.verdict, made.code) == (verdict, code)


async def test_a_number_that_is_not_there_is_no_fault_of_the_message(far: Cloud) -> None:
    body = b'{"error": {"code": 100, "error_subcode": 33, "message": "no such object"}}'
    assert (await attempt(far, (400, body))).verdict is Verdict.PAUSE


async def test_a_wait_that_is_asked_for_is_told(far: Cloud) -> None:
    far.headers = {"Retry-After": "17"}
    assert (await attempt(far, (429, failure(130429)))).retry_after == 17.0


@pytest.mark.parametrize("misbehaviour", ["hang", "close", "half-closed"])
async def test_without_an_answer_nobody_knows(far: Cloud, misbehaviour: str) -> None:
    made = await attempt(far, misbehaviour, timeout=0.3)
    assert made.verdict is Verdict.UNKNOWN


@pytest.mark.parametrize(
    "body", [b"", b"ok", b"[]", b"{}", b'{"messages": []}', b'{"messages": [{"id": ""}]}']
)
async def test_a_success_that_names_no_message_is_unknown(far: Cloud, body: bytes) -> None:
    assert (await attempt(far, (200, body))).verdict is Verdict.UNKNOWN


async def test_where_nobody_listens_nothing_was_sent() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        client = client_of(f"http://127.0.0.1:{free.getsockname()[1]}")
        made = await client.send("1", "Hello", reference="1:m")
        await client.close()
    assert made.verdict is Verdict.RETRY


async def test_the_token_is_in_no_error(far: Cloud) -> None:
    made = await attempt(far, (400, failure(100, f"token {TOKEN}\nis bad")))
    assert made.error == "status 400: token *** is bad"
