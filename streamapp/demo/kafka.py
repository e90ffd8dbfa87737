"""A broker that speaks the Kafka protocol, inside this process."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

_ERROR_SIZE = 512
_PRODUCER = 0


class KafkaUnavailable(Exception):
    """The embedded broker cannot be used; the message says why."""


class EmbeddedKafka:
    """librdkafka's mock cluster."""

    def __init__(self) -> None:
        self._library: ctypes.CDLL | None = None
        self._client: int | None = None
        self._cluster: int | None = None
        self.bootstrap = ""

    def start(self, topics: Mapping[str, int]) -> str:
        library = _load()
        error = ctypes.create_string_buffer(_ERROR_SIZE)
        client = library.rd_kafka_new(_PRODUCER, None, error, _ERROR_SIZE)
        if not client:
            raise KafkaUnavailable(f"librdkafka did not start: {error.value.decode()}")
        cluster = library.rd_kafka_mock_cluster_new(client, 1)
        if not cluster:
            library.rd_kafka_destroy(client)
            raise KafkaUnavailable("librdkafka did not create its mock cluster")
        self._library, self._client, self._cluster = library, client, cluster
        self.bootstrap = library.rd_kafka_mock_cluster_bootstraps(cluster).decode()
        for name, partitions in topics.items():
            self.create_topic(name, partitions)
        return self.bootstrap

    def create_topic(self, name: str, partitions: int) -> None:
        assert self._library is not None
        code = self._library.rd_kafka_mock_topic_create(
            self._cluster, name.encode(), partitions, 1
        )
        if code != 0:
            raise KafkaUnavailable(f"topic {name} was not created: error {code}")

    def stop(self) -> None:
        if self._library is None:
            return
        self._library.rd_kafka_mock_cluster_destroy(self._cluster)
        self._library.rd_kafka_destroy(self._client)
        self._library = self._client = self._cluster = None


def _load() -> ctypes.CDLL:
    spec = find_spec("confluent_kafka")
    if spec is None or not spec.submodule_search_locations:
        raise KafkaUnavailable("the broker is not installed: pip install 'streamapp[demo]'")
    package = Path(spec.submodule_search_locations[0])
    found = sorted(package.with_name("confluent_kafka.libs").glob("librdkafka*")) or sorted(
        (package / ".dylibs").glob("librdkafka*")
    )
    if not found:
        raise KafkaUnavailable(f"this build of confluent-kafka has no librdkafka in {package}")
    library = ctypes.CDLL(str(found[0]))
    pointer, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
    for name, result, arguments in (
        ("rd_kafka_new", pointer, [number, pointer, text, ctypes.c_size_t]),
        ("rd_kafka_destroy", None, [pointer]),
        ("rd_kafka_mock_cluster_new", pointer, [pointer, number]),
        ("rd_kafka_mock_cluster_bootstraps", text, [pointer]),
        ("rd_kafka_mock_cluster_destroy", None, [pointer]),
        ("rd_kafka_mock_topic_create", number, [pointer, text, number, number]),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library
