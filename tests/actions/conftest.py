"""Shared fixtures of the tests of actions."""

from collections.abc import AsyncIterator

import pytest

from streamapp.actions.defaults import default_actions
from streamapp.actions.registry import ActionRegistry
from tests.actions.fakes import FakeHttp, FakeMailer, FakeSlack, all_clients
from tests.support.bench import Bench, running_bench


@pytest.fixture
def http() -> FakeHttp:
    return FakeHttp()


@pytest.fixture
def mailer() -> FakeMailer:
    return FakeMailer()


@pytest.fixture
def slack() -> FakeSlack:
    return FakeSlack()


@pytest.fixture
def registry(http: FakeHttp, mailer: FakeMailer, slack: FakeSlack) -> ActionRegistry:
    """All actions, with services that record what they are asked."""
    return default_actions(all_clients(http, mailer, slack))


@pytest.fixture
async def bench(database: str) -> AsyncIterator[Bench]:
    async with running_bench(database) as bench:
        yield bench
