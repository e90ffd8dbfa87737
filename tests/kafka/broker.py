"""A real Apache Kafka broker for tests: one Java process on free ports, in a scratch directory."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from base64 import urlsafe_b64encode
from pathlib import Path
from uuid import uuid4

HERE = Path(__file__).resolve().parent
JARS = HERE.parents[1] / ".cache" / "kafka-jars"
START_WITHIN = 60.0  # seconds

_PROPERTIES = """
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
log.dirs={directory}/data
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
"""


def free_ports(count: int) -> list[int]:
    """Ports that were free just now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def jars() -> Path:
    """The broker's jars, fetched once. Raises ``FileNotFoundError`` without Maven."""
    if not any(JARS.glob("kafka_2.13-*.jar")):
        maven = shutil.which("mvn")
        if maven is None or shutil.which("java") is None:
            raise FileNotFoundError("the tests on real Kafka need Java 17 and Maven")
        subprocess.run(
            [
                maven,
                "-B",
                "-q",
                "-f",
                str(HERE / "pom.xml"),
                "dependency:copy-dependencies",
                "-DincludeScope=runtime",
                f"-DoutputDirectory={JARS}",
            ],
            check=True,
            timeout=600,
        )
    return JARS


class Broker:
    """One broker. ``stop`` ends the process, by its id, and keeps the data for ``start``."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port, self._controller = free_ports(2)
        self._process: subprocess.Popen[bytes] | None = None
        self._classpath = f"{jars()}/*"
        directory.mkdir(parents=True, exist_ok=True)
        self._properties = directory / "server.properties"
        self._properties.write_text(
            _PROPERTIES.format(port=self.port, controller=self._controller, directory=directory)
        )
        identity = urlsafe_b64encode(uuid4().bytes).decode().rstrip("=")
        self._java("kafka.tools.StorageTool", "format", "-t", identity, "-c")

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self.port}"

    def _java(self, main: str, *arguments: str) -> None:
        subprocess.run(
            ["java", "-cp", self._classpath, main, *arguments, str(self._properties)],
            check=True,
            cwd=self.directory,
            capture_output=True,
            timeout=120,
        )

    def start(self) -> None:
        log = (self.directory / "broker.log").open("ab")
        self._process = subprocess.Popen(
            [
                "java",
                "-Xmx512m",
                "-XX:+UseSerialGC",
                "-XX:TieredStopAtLevel=1",
                "-cp",
                self._classpath,
                "kafka.Kafka",
                str(self._properties),
            ],
            cwd=self.directory,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        deadline = time.monotonic() + START_WITHIN
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            with socket.socket() as probe:
                probe.settimeout(1)
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        raise RuntimeError(f"Kafka did not start: {(self.directory / 'broker.log').read_text()}")

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            os.kill(self._process.pid, signal.SIGTERM)
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._process = None
