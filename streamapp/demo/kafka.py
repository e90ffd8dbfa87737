"""A broker that speaks the Kafka protocol, inside this process: librdkafka's mock cluster.

It comes with the wheel ``confluent-kafka`` and is driven through ctypes, as the wheel's own API
does not reach it. For the demo and for fast tests only:

- Records are in memory. A partition keeps at most 5 MiB and at most 100,000 batches, and drops
  the oldest batches beyond, read or not; librdkafka has no way to raise either. (That is about
  5,000 records of 1 kB, sent singly; time and compaction delete nothing.)
- A consumer group is for one member at a time: a member whose SyncGroup comes after the leader's
  is refused as invalid. Rebalances need Apache Kafka.
- There is one broker, without CreateTopics, ACLs and the settings of topics. A topic that a
  client merely asks for is created, with 4 partitions: create each one first.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_ERROR_SIZE = 512
_PRODUCER = 0  # the type of client that hosts the cluster; it never sends anything
_OK = 0


class KafkaUnavailable(Exception):
    """The embedded broker cannot be used; the message says why."""


class EmbeddedKafka:
    """One broker on 127.0.0.1, on a free port, run by threads of librdkafka."""

    def __init__(self) -> None:
        self._library: ctypes.CDLL | None = None
        self._client: int | None = None
        self._cluster: int | None = None
        self._bootstrap = ""

    @property
    def bootstrap(self) -> str:
        """``host:port`` of the broker; empty before ``start``."""
        return self._bootstrap

    def start(self, topics: Mapping[str, int]) -> str:
        """Start the broker with these topics (name to partitions); gives ``bootstrap``.

        Raises ``KafkaUnavailable`` where librdkafka is missing or refuses.
        """
        if self._library is not None:
            raise KafkaUnavailable("the broker runs already")
        library = _load()
        client = _new_client(library)
        cluster = library.rd_kafka_mock_cluster_new(client, 1)
        if not cluster:
            library.rd_kafka_destroy(client)
            raise KafkaUnavailable("librdkafka did not create its mock cluster")
        self._library, self._client, self._cluster = library, client, cluster
        # By default the first member of a group waits three seconds for others.
        library.rd_kafka_mock_group_initial_rebalance_delay_ms(cluster, 0)
        self._bootstrap = library.rd_kafka_mock_cluster_bootstraps(cluster).decode()
        for name, partitions in topics.items():
            self.create_topic(name, partitions)
        return self._bootstrap

    def create_topic(self, name: str, partitions: int) -> None:
        """Create a topic. Raises ``KafkaUnavailable``, also where there is one of that name."""
        if self._library is None:
            raise KafkaUnavailable("the broker does not run")
        code = self._library.rd_kafka_mock_topic_create(self._cluster, name.encode(), partitions, 1)
        if code != _OK:
            reason = self._library.rd_kafka_err2str(code).decode()
            raise KafkaUnavailable(f"topic {name} was not created: {reason}")

    def stop(self) -> None:
        """Stop the broker; its records are gone. Harmless twice."""
        if self._library is None:
            return
        self._library.rd_kafka_mock_cluster_destroy(self._cluster)
        self._library.rd_kafka_destroy(self._client)
        self._library = self._client = self._cluster = None


def _new_client(library: ctypes.CDLL) -> int:
    config = library.rd_kafka_conf_new()
    # Its default would write to standard error.
    library.rd_kafka_conf_set_log_cb(config, None)
    error = ctypes.create_string_buffer(_ERROR_SIZE)
    client: int | None = library.rd_kafka_new(_PRODUCER, config, error, _ERROR_SIZE)
    if not client:
        library.rd_kafka_conf_destroy(config)  # otherwise the client owns it
        raise KafkaUnavailable(f"librdkafka did not start: {error.value.decode()}")
    return client


def _load() -> ctypes.CDLL:
    path = _library_path()
    try:
        library = ctypes.CDLL(str(path))
        _declare(library)
    except (OSError, AttributeError) as error:
        raise KafkaUnavailable(f"librdkafka cannot be used: {error}") from error
    return library


def _library_path() -> Path:
    spec = find_spec("confluent_kafka")
    if spec is None or not spec.submodule_search_locations:
        raise KafkaUnavailable("the broker is not installed: pip install 'streamapp[demo]'")
    package = Path(spec.submodule_search_locations[0])
    # Where wheels for Linux keep it, and where those for macOS do.
    for folder in (package.with_name("confluent_kafka.libs"), package / ".dylibs"):
        for path in sorted(folder.glob("librdkafka[-.]*")):
            return path
    raise KafkaUnavailable(
        "this installation of confluent-kafka has no librdkafka of its own: install it as a wheel"
    )


def _declare(library: ctypes.CDLL) -> None:
    """Types of the functions in use. Raises ``AttributeError`` where the library lacks one."""
    pointer, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
    signatures: dict[str, tuple[Any, list[Any]]] = {
        "rd_kafka_conf_new": (pointer, []),
        "rd_kafka_conf_destroy": (None, [pointer]),
        "rd_kafka_conf_set_log_cb": (None, [pointer, pointer]),
        "rd_kafka_new": (pointer, [number, pointer, text, ctypes.c_size_t]),
        "rd_kafka_destroy": (None, [pointer]),
        "rd_kafka_err2str": (text, [number]),
        "rd_kafka_mock_cluster_new": (pointer, [pointer, number]),
        "rd_kafka_mock_cluster_bootstraps": (text, [pointer]),
        "rd_kafka_mock_cluster_destroy": (None, [pointer]),
        "rd_kafka_mock_topic_create": (number, [pointer, text, number, number]),
        "rd_kafka_mock_group_initial_rebalance_delay_ms": (None, [pointer, ctypes.c_int32]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
