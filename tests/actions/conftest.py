"""Shared fixtures of the tests of actions."""

import pytest

from streamapp.actions.defaults import default_actions
from streamapp.actions.registry import ActionRegistry
from tests.actions.fakes import FakeHttp, FakeMailer


@pytest.fixture
def http() -> FakeHttp:
    return FakeHttp()


@pytest.fixture
def mailer() -> FakeMailer:
    return FakeMailer()


@pytest.fixture
def registry(http: FakeHttp, mailer: FakeMailer) -> ActionRegistry:
    """All actions, with an order service and e-mail that record what they are asked."""
    return default_actions(http, mailer)
