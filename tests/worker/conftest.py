"""Workers as processes, on the embedded broker and database."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from streamapp.demo.kafka import EmbeddedKafka
from tests.support.worker import WorkerProcess

_names = count(1)


class Stage:
    """Topics, consumer group and database of one test's own, and its workers."""

    def __init__(self, kafka: EmbeddedKafka, database: str, directory: Path) -> None:
        self.kafka = kafka
        self.group = f"group-{next(_names)}"
        self._directory = directory
        self.workers: list[WorkerProcess] = []
        self.environment = {
            "STREAMAPP_KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap,
            "STREAMAPP_DATABASE_URL": database,
            "STREAMAPP_INPUT_TOPIC": f"{self.group}-in",
            "STREAMAPP_DLQ_TOPIC": f"{self.group}-dlq",
            "STREAMAPP_OUTBOUND_TOPIC": f"{self.group}-out",
            "STREAMAPP_CONSUMER_GROUP": self.group,
            "STREAMAPP_DECLARE_TOPICS": "false",
            "STREAMAPP_COMMIT_INTERVAL": "0.2",
            # Shorter than a real broker allows: who comes after a kill waits for its end.
            "STREAMAPP_SESSION_TIMEOUT": "3",
        }

    @property
    def topics(self) -> dict[str, str]:
        """The topics that a worker needs, by what they are for."""
        return {
            "input": f"{self.group}-in",
            "dlq": f"{self.group}-dlq",
            "outbound": f"{self.group}-out",
            "changelog": f"{self.group}-seen-changelog",
            "leader": f"{self.group}-__assignor-__leader",
        }

    def create_topics(self, partitions: int, **others: int) -> None:
        """Create them; ``others`` gives another number of partitions, 0: leave it out."""
        self.environment["STREAMAPP_TOPIC_PARTITIONS"] = str(partitions)
        for name, topic in self.topics.items():
            number = others.get(name, 1 if name == "leader" else partitions)
            if number:
                self.kafka.create_topic(topic, number)

    def worker(self, **more: str) -> WorkerProcess:
        """A worker that is not started yet."""
        directory = self._directory / f"worker-{len(self.workers)}"
        self.workers.append(WorkerProcess(directory, {**self.environment, **more}))
        return self.workers[-1]


@pytest.fixture
def stage(kafka: EmbeddedKafka, database: str, tmp_path: Path) -> Iterator[Stage]:
    """An empty stage; its workers are killed when the test ends."""
    stage = Stage(kafka, database, tmp_path)
    try:
        yield stage
    finally:
        for worker in stage.workers:
            worker.kill()
