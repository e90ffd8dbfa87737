"""Fixtures of the tests on Apache Kafka itself."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kafka.broker import Broker


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A running broker; where Java or Maven are missing, CI fails and others skip."""
    directory: Path = tmp_path_factory.mktemp("kafka")
    try:
        broker = Broker(directory)
    except FileNotFoundError as missing:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(missing))
    broker.start()
    yield broker
    broker.stop()
