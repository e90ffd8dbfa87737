"""The Slack client against a stand-in that answers as Slack documents it, and worse."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import time
import traceback
from collections.abc import AsyncIterator

import pytest
from aiohttp.test_utils import TestServer
from pydantic import SecretStr

from streamapp.services import slack as module
from streamapp.services.errors import NotNow, Rejected, Retryable, ServiceError
from streamapp.services.slack import Slack
from tests.services.servers import Service

SECRET = "T000/B000/XXXXsecret"
KEY = "0a1b2c3d-key"


@pytest.fixture
async def slack(server: TestServer, far: Service) -> AsyncIterator[Slack]:
    far.body = b"ok"
    client = at(str(server.make_url(f"/services/{SECRET}")))
    yield client
    await client.close()


def at(url: str, timeout: float = 10.0) -> Slack:
    return Slack({"agent": SecretStr(url), "other": SecretStr(url + "/2")}, timeout)


async def failure(client: Slack, key: str = KEY) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        await client.send("agent", "Hello", key=key)
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    return caught.value


async def test_a_message_arrives_with_its_reference(slack: Slack, far: Service) -> None:
    await slack.send("agent", "*Gr\u00fc\u00dfe* &lt;x&gt;", key=KEY)
    (request,) = far.requests
    assert (request.method, request.path) == ("POST", f"/services/{SECRET}")
    assert json.loads(far.bodies[0]) == {
        "text": f"*Gr\u00fc\u00dfe* &lt;x&gt;\n_Reference: {KEY}_",
        "unfurl_links": False,
        "unfurl_media": False,
    }


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, b"invalid_payload"),
        (403, b"action_prohibited"),
        (404, b"channel_not_found"),
        (404, b"no_service"),
        (409, b"?"),
        (410, b"channel_is_archived"),
    ],
)
async def test_what_slack_refuses_is_rejected(
    slack: Slack, far: Service, status: int, body: bytes
) -> None:
    far.status, far.body = status, body
    error = await failure(slack)
    assert isinstance(error, Rejected)
    assert body.decode() in str(error)


@pytest.mark.parametrize("status", [301, 408, 500, 502, 503])
async def test_other_answers_leave_it_in_doubt(slack: Slack, far: Service, status: int) -> None:
    far.status = status
    far.headers = {"Retry-After": "7"}
    error = await failure(slack)
    assert isinstance(error, Retryable)
    assert error.in_doubt
    assert error.retry_after == 7.0


@pytest.mark.parametrize(
    ("behaviour", "doubt"), [("close", True), ("hang", True), ("close half-way", True)]
)
async def test_without_an_answer_it_is_in_doubt(
    server: TestServer, far: Service, behaviour: str, doubt: bool
) -> None:
    far.behaviour = behaviour
    client = at(str(server.make_url(f"/services/{SECRET}")), timeout=0.3)
    error = await failure(client)
    await client.close()
    assert isinstance(error, Retryable)
    assert error.in_doubt is doubt


async def test_where_nobody_listens_nothing_was_sent() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        client = at(f"http://127.0.0.1:{free.getsockname()[1]}/{SECRET}")
        error = await failure(client)
        await client.close()
    assert isinstance(error, Retryable)
    assert not error.in_doubt


async def test_too_many_closes_the_channel_for_as_long_as_slack_says(
    slack: Slack, far: Service
) -> None:
    far.status, far.body, far.headers = 429, b"rate_limited", {"Retry-After": "25"}
    error = await failure(slack)
    assert isinstance(error, NotNow)
    assert error.seconds == 25.0
    far.status = 200
    later = await failure(slack, "another")
    assert isinstance(later, NotNow)
    assert 20.0 < later.seconds <= 25.0
    assert len(far.requests) == 1, "nothing is sent there meanwhile"
    await slack.send("other", "Hello", key=KEY)


async def test_too_many_without_a_time(slack: Slack, far: Service) -> None:
    far.status = 429
    error = await failure(slack)
    assert isinstance(error, NotNow)
    assert error.seconds == module.DEFAULT_PAUSE


async def test_one_message_a_second_to_a_channel(slack: Slack, far: Service) -> None:
    arrived: list[float] = []
    handle = far.handle

    async def sent(number: int) -> float:
        """Send as a saga does, which comes again when it is told to."""
        while True:
            try:
                await slack.send("agent", f"message {number}", key=f"key {number}")
            except NotNow as error:
                await asyncio.sleep(error.seconds)
            else:
                return time.monotonic()

    assert handle is not None
    arrived = sorted(await asyncio.gather(*map(sent, range(3))))
    texts = [json.loads(body)["text"].splitlines()[0] for body in far.bodies]
    assert texts == [f"message {number}" for number in range(3)]
    # Answers may come faster than the requests went out, by as much as the first took.
    assert arrived[2] - arrived[0] > 1.5


async def test_a_call_is_not_held_longer_than_allowed_before_it_begins(slack: Slack) -> None:
    await slack.send("agent", "first", key="1")
    second = asyncio.create_task(slack.send("agent", "second", key="2"))
    await asyncio.sleep(0)
    error = await failure(slack, "3")
    assert isinstance(error, NotNow)
    assert 1.0 < error.seconds <= 2.0
    await second


async def test_a_team_without_a_channel_is_rejected(slack: Slack) -> None:
    with pytest.raises(Rejected, match="nobody has no webhook"):
        await slack.send("nobody", "Hello", key=KEY)


@pytest.mark.parametrize("status", [200, 500])
async def test_an_answer_is_not_read_without_end(slack: Slack, far: Service, status: int) -> None:
    far.status, far.behaviour = status, "endless"
    async with asyncio.timeout(5):
        if status == 200:
            await slack.send("agent", "Hello", key=KEY)
        else:
            assert len(str(await failure(slack))) < 400


async def test_addresses_are_not_logged(
    slack: Slack, far: Service, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        await slack.send("agent", "Hello", key=KEY)
        far.status = 500
        await failure(slack, "2")
    ours = [record for record in caplog.records if record.name != "aiohttp.access"]  # the server's
    assert SECRET not in str([record.getMessage() for record in ours])


async def test_closed(slack: Slack, far: Service) -> None:
    await slack.send("agent", "Hello", key=KEY)
    await slack.close()
    error = await failure(slack, "2")
    assert isinstance(error, Retryable)
    assert not error.in_doubt
    assert len(far.requests) == 1
