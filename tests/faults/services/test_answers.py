"""What each bad answer means, what the next attempt sends, and what an answer may cost."""

from __future__ import annotations

import asyncio
import ssl
import tracemalloc
from typing import Any

import pytest

from streamapp.actions.base import CallContext, StepContext
from streamapp.services.errors import Busy, Rejected, Retryable, ServiceError
from tests.faults.services.behaviours import CASES, raw, says
from tests.faults.services.far import OrderService, http, serving
from tests.faults.services.orders import DEADLINE, TOKEN, Near, both, connected
from tests.support.waiting import until

BIG = ("gigabyte", "MB", "without end")
AFFORDABLE = 24 << 20  # bytes that an answer may cost in memory, the far side's own included
# What the systems' buffers between two processes take before the sender has to wait.
BUFFERS = 64 << 20


class Attempts:
    """One step's attempts: the same key and bytes each time, as the saga makes them."""

    def __init__(self, near: Near) -> None:
        state = near.order()
        step = next(each for each in state.plan.steps if each.executor == "order_service")
        context = StepContext(state.message, state.run, step, {})
        self._executor = near.executor
        self._request = self._executor.request(context)
        self._context = context
        self.key = "key-of-the-creation"

    async def once(self) -> dict[str, Any]:
        async with asyncio.timeout(DEADLINE):
            return await self._executor.call(
                self._request, CallContext(self._context, self.key, attempt=1)
            )


def verdict(error: ServiceError) -> str:
    if isinstance(error, Retryable):
        return "in doubt" if error.in_doubt else "not now"
    if isinstance(error, Busy):
        return "busy"
    assert isinstance(error, Rejected)
    return "rejected"


@pytest.mark.parametrize("name", CASES)
async def test_a_bad_answer(name: str) -> None:
    case = CASES[name]
    far = OrderService(create=case.behaviour, effective=case.effect, bad=1)
    async with both(far) as near:
        attempts = Attempts(near)
        with pytest.raises(ServiceError) as caught:
            await attempts.once()
        assert verdict(caught.value) == case.verdict
        assert getattr(caught.value, "retry_after", None) == pytest.approx(case.retry_after)
        assert TOKEN not in str(caught.value)
        assert len(str(caught.value)) < 400
        # The next attempt is not disturbed by what is left of this one.
        answer = await attempts.once()
        assert answer == {"order_id": f"order-{attempts.key[:8]}"}
        assert len(far.requests) == 2
        assert far.requests[0] == far.requests[1], "the same key and bytes"
        assert far.made == [attempts.key]
    await until(lambda: far.open == 0)


@pytest.mark.parametrize("name", [name for name in CASES if any(big in name for big in BIG)])
async def test_what_a_big_answer_costs(name: str) -> None:
    far = OrderService(create=CASES[name].behaviour)
    async with both(far) as near:
        attempts = Attempts(near)
        for measured in (False, True):  # the first makes what is made once
            if measured:
                tracemalloc.start()
            with pytest.raises(ServiceError):
                await attempts.once()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        await until(lambda: far.open == 0)
    assert peak < AFFORDABLE
    if "interim" not in name:  # these are read and forgotten until the time is over
        assert far.sent < 2 * BUFFERS


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirection_takes_nothing_to_another_host(status: int) -> None:
    """The order may have been made (303 says so), and the other host learns of nothing."""
    elsewhere = OrderService()
    async with serving(elsewhere) as other:
        far = OrderService(create=says(status, b"", f"Location: {other}/orders"), bad=1)
        async with both(far) as near:
            attempts = Attempts(near)
            with pytest.raises(Retryable) as caught:
                await attempts.once()
            assert caught.value.in_doubt
            assert await attempts.once()
        assert elsewhere.requests == []
        assert elsewhere.open == 0
    assert far.requests[0] == far.requests[1]
    assert far.requests[0].headers["authorization"] == f"Bearer {TOKEN}"
    assert far.made == [attempts.key]


async def test_a_plain_client_of_a_service_with_tls() -> None:
    """It sent its request to somebody, so nobody knows what became of it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)  # no certificate: it never comes so far
    far = OrderService()
    async with serving(far, context) as url, connected(url) as near:
        with pytest.raises(Retryable) as caught:
            await Attempts(near).once()
    assert caught.value.in_doubt
    assert far.requests == []


async def test_an_answer_that_comes_before_its_request_is_none_of_it() -> None:
    """Two answers to one request: the second one must not become the next request's."""
    twice = http(200, b'{"order_id": "first"}') + http(200, b'{"order_id": "stray"}')
    far = OrderService(create=raw(twice, then="silence"), bad=1)
    async with both(far) as near:
        attempts = Attempts(near)
        assert await attempts.once() == {"order_id": "first"}
        attempts.key = "another"
        assert await attempts.once() == {"order_id": "order-another"}
