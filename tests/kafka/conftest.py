"""Fixtures of the tests on Apache Kafka itself."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from tests.chaos.services import OrderService
from tests.kafka.broker import Broker
from tests.kafka.stage import RATE, Stage

_names = count(1)
NewBroker = Callable[..., Broker]
NewStage = Callable[..., Stage]


@pytest.fixture(autouse=True)
def quiet_clients() -> None:
    """The tests' own Kafka clients tell of every attempt while a broker is away."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)


@pytest.fixture(scope="session")
def java() -> None:
    """Java and Maven; where they are missing, CI fails and others skip."""
    from tests.kafka.broker import jars

    try:
        jars()
    except FileNotFoundError as missing:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def broker(java: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """The broker of all tests that break no broker."""
    broker = Broker(tmp_path_factory.mktemp("kafka"))
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture(scope="module")
def own_broker(java: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker that the tests of this module may stop and start."""
    broker = Broker(tmp_path_factory.mktemp("own-kafka"))
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture(scope="session")
def guarded_broker(java: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker that obeys rules about who may do what; without any, all is allowed."""
    broker = Broker(
        tmp_path_factory.mktemp("guarded-kafka"),
        {
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "allow.everyone.if.no.acl.found": "true",
        },
    )
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture
async def orders() -> AsyncIterator[tuple[OrderService, str]]:
    """An order service that notes each request with its key, and its address."""
    began = time.monotonic()
    service = OrderService(lambda: time.monotonic() - began, seed=1)
    url = await service.start()
    yield service, url
    await service.stop()


@pytest.fixture
def new_stage(
    orders: tuple[OrderService, str], database: str, tmp_path: Path
) -> Iterator[NewStage]:
    """Makes the stage of a test: topics, group and database of its own, on the given broker."""
    made: list[Stage] = []

    def make(bootstrap: str, dsn: str = database, rate: float = RATE, **more: str) -> Stage:
        service, url = orders
        name = f"s{next(_names)}"
        made.append(Stage(name, bootstrap, dsn, service, url, tmp_path, rate, **more))
        return made[-1]

    yield make
    for stage in made:
        stage.close()
