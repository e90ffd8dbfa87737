"""Where a contender works in one run, as its process is told by the environment."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_PREFIX = "BENCH_"


@dataclass(frozen=True, slots=True)
class Place:
    """``directory`` is for state and logs. ``service`` is the address of the order service, empty
    where there is none. ``group`` and ``database`` are fresh."""

    bootstrap: str
    database: str
    topic: str
    partitions: int
    group: str
    directory: Path
    service: str = ""

    def environment(self) -> dict[str, str]:
        return {
            f"{_PREFIX}BOOTSTRAP": self.bootstrap,
            f"{_PREFIX}DATABASE": self.database,
            f"{_PREFIX}TOPIC": self.topic,
            f"{_PREFIX}PARTITIONS": str(self.partitions),
            f"{_PREFIX}GROUP": self.group,
            f"{_PREFIX}DIRECTORY": str(self.directory),
            f"{_PREFIX}SERVICE": self.service,
        }

    @classmethod
    def from_environment(cls) -> Place:
        """The place of this process. Raises ``KeyError`` outside of a benchmark."""

        def given(name: str) -> str:
            return os.environ[f"{_PREFIX}{name}"]

        return cls(
            bootstrap=given("BOOTSTRAP"),
            database=given("DATABASE"),
            topic=given("TOPIC"),
            partitions=int(given("PARTITIONS")),
            group=given("GROUP"),
            directory=Path(given("DIRECTORY")),
            service=given("SERVICE"),
        )
