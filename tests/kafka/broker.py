"""Real Apache Kafka brokers for tests: Java processes on free ports, in scratch directories."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from pathlib import Path
from uuid import uuid4

HERE = Path(__file__).resolve().parent
JARS = HERE.parents[1] / ".cache" / "kafka-jars"
START_WITHIN = 60.0  # seconds

_PROPERTIES = {
    "process.roles": "broker,controller",
    "controller.listener.names": "CONTROLLER",
    "offsets.topic.num.partitions": "4",
    "group.initial.rebalance.delay.ms": "0",
    "auto.create.topics.enable": "false",
}


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


def new_cluster_id() -> str:
    return urlsafe_b64encode(uuid4().bytes).decode().rstrip("=")


class Broker:
    """One broker. ``stop`` and ``kill`` end the process, by its id; the data is kept for
    ``start``. ``more`` are further broker settings.

    ``node`` and ``voters`` (the controllers' ports by node) make it one of several.
    """

    def __init__(
        self,
        directory: Path,
        more: Mapping[str, str] | None = None,
        *,
        node: int = 1,
        voters: Mapping[int, int] | None = None,
        cluster_id: str | None = None,
    ) -> None:
        self.directory = directory
        self.port, own = free_ports(2)
        voters = voters or {node: own}
        replicas = str(len(voters))
        self._process: subprocess.Popen[bytes] | None = None
        self._classpath = f"{jars()}/*"
        directory.mkdir(parents=True, exist_ok=True)
        self._properties = directory / "server.properties"
        listener = f"PLAINTEXT://127.0.0.1:{self.port}"
        quorum = ",".join(f"{id_}@127.0.0.1:{port}" for id_, port in voters.items())
        properties = {
            **_PROPERTIES,
            "node.id": str(node),
            "controller.quorum.voters": quorum,
            "listeners": f"{listener},CONTROLLER://127.0.0.1:{voters[node]}",
            "advertised.listeners": listener,
            "log.dirs": str(directory / "data"),
            "offsets.topic.replication.factor": replicas,
            "transaction.state.log.replication.factor": replicas,
            "transaction.state.log.min.isr": "1",
            "share.coordinator.state.topic.replication.factor": replicas,
            "share.coordinator.state.topic.min.isr": "1",
            **(more or {}),
        }
        self._properties.write_text("".join(f"{k}={v}\n" for k, v in properties.items()))
        self._java("kafka.tools.StorageTool", "format", "-t", cluster_id or new_cluster_id(), "-c")

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _java(self, main: str, *arguments: str) -> None:
        subprocess.run(
            ["java", "-cp", self._classpath, main, *arguments, str(self._properties)],
            check=True,
            cwd=self.directory,
            capture_output=True,
            timeout=120,
        )

    def start(self) -> None:
        """Start and wait until it takes connections."""
        self.launch()
        self.wait_until_up()

    def launch(self) -> None:
        """Start without waiting: one of several takes no connections before the others run."""
        assert not self.running, "it runs already"
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

    def wait_until_up(self) -> None:
        deadline = time.monotonic() + START_WITHIN
        while time.monotonic() < deadline:
            if not self.running:
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

    def kill(self) -> None:
        """SIGKILL; harmless when it does not run."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = None


class BrokerCluster:
    """Several brokers, each a controller too; every topic needs a majority of them to write."""

    def __init__(self, directory: Path, size: int = 3) -> None:
        voters = dict(enumerate(free_ports(size), start=1))
        identity = new_cluster_id()
        more = {"min.insync.replicas": str(size // 2 + 1), "default.replication.factor": str(size)}
        self.brokers = [
            Broker(directory / f"{node}", more, node=node, voters=voters, cluster_id=identity)
            for node in voters
        ]

    @property
    def bootstrap(self) -> str:
        return ",".join(broker.bootstrap for broker in self.brokers)

    def start(self) -> None:
        """Start all and wait until they take connections."""
        for broker in self.brokers:
            broker.launch()
        for broker in self.brokers:
            broker.wait_until_up()

    def stop(self) -> None:
        """End all at once: a majority that leaves first would let the rest wait for it."""
        for broker in self.brokers:
            broker.kill()
