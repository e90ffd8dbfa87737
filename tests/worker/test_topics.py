"""Topics: what is missing is created with the right settings, what is there is left alone."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import IncompatibleBrokerVersion

from streamapp.settings import Settings
from streamapp.worker.topics import TopicAdmin, TopicError, ensure_topics


class Cluster:
    """Answers as aiokafka's admin client does."""

    def __init__(self, **topics: dict[str, str]) -> None:
        self.configs = {name.replace("_", "-"): dict(config) for name, config in topics.items()}
        self.counts = dict.fromkeys(self.configs, 4)
        self.created: dict[str, Any] = {}
        self.tells_configs = True
        self.lag = 0  # answers that do not know a topic yet
        self.error = 0
        self.message: str | None = None

    async def describe_topics(self, topics: object = None) -> list[dict[str, Any]]:
        assert topics is None, "asking by name creates topics on some brokers"
        return [{"topic": name, "partitions": [{}] * count} for name, count in self.counts.items()]

    async def describe_configs(self, resources: list[Any]) -> list[Any]:
        if not self.tells_configs:
            raise IncompatibleBrokerVersion("unknown")
        (resource,) = resources
        if self.lag:
            self.lag -= 1
            return [SimpleNamespace(resources=[(3, "unknown", 2, resource.name, [])])]
        config = {"retention.ms": "604800000", "max.message.bytes": "1048588"}
        config |= self.configs[resource.name]
        entries: list[Any] = [(name, value, False, 1, False, []) for name, value in config.items()]
        return [SimpleNamespace(resources=[(0, "", 2, resource.name, entries)])]

    async def create_topics(self, topics: list[Any]) -> Any:
        (topic,) = topics
        self.created[topic.name] = topic
        if self.error == 0:
            self.configs[topic.name] = dict(topic.topic_configs)
            self.counts[topic.name] = topic.num_partitions
        return SimpleNamespace(topic_errors=[(topic.name, self.error, self.message)])


SETTINGS = Settings(topic_partitions=6, topic_replication=3)  # type: ignore[call-arg]


async def test_missing_topics_are_created() -> None:
    cluster = Cluster()
    reports = await ensure_topics(SETTINGS, TopicAdmin(cluster))
    assert [(report.name, report.created, report.partitions) for report in reports] == [
        ("ai-results", True, 6),
        ("ai-results-dlq", True, 6),
        ("whatsapp-outbound", True, 6),
    ]
    assert {topic.replication_factor for topic in cluster.created.values()} == {3}
    assert cluster.created["ai-results"].topic_configs["retention.ms"] == "86400000"
    dlq = cluster.created["ai-results-dlq"].topic_configs
    assert dlq == {"max.message.bytes": str(1048588 + 65536)}


async def test_the_input_is_kept_no_longer_than_the_window() -> None:
    settings = SETTINGS.model_copy(update={"input_retention": 900_000.0, "dedup_window": 3600.0})
    cluster = Cluster()
    await ensure_topics(settings, TopicAdmin(cluster))
    config = cluster.created["ai-results"].topic_configs
    assert config["retention.ms"] == "3600000"
    # Only whole segments are deleted.
    assert int(config["segment.ms"]) < 3_600_000


async def test_the_dead_letter_topic_fits_an_input_with_large_records() -> None:
    cluster = Cluster(ai_results={"max.message.bytes": "5000000"})
    cluster.lag = 2
    await ensure_topics(SETTINGS, TopicAdmin(cluster))
    assert cluster.created["ai-results-dlq"].topic_configs == {
        "max.message.bytes": str(5000000 + 65536)
    }


async def test_existing_topics_are_not_touched() -> None:
    cluster = Cluster(ai_results={}, ai_results_dlq={}, whatsapp_outbound={})
    reports = await ensure_topics(SETTINGS, TopicAdmin(cluster))
    assert cluster.created == {}
    assert [report.created for report in reports] == [False, False, False]
    assert [report.partitions for report in reports] == [4, 4, 4]


@pytest.mark.parametrize(
    ("config", "wrong"),
    [
        ({"retention.ms": "86400000"}, False),
        ({"retention.ms": "86400001"}, True),
        ({"retention.ms": "-1"}, True),
        ({"retention.ms": "-1", "cleanup.policy": "compact"}, False),
    ],
)
async def test_a_retention_beyond_the_window_is_named(config: dict[str, str], wrong: bool) -> None:
    cluster = Cluster(ai_results=config, whatsapp_outbound={})
    report = (await ensure_topics(SETTINGS, TopicAdmin(cluster)))[0]
    assert bool(report.problems) is wrong
    assert not wrong or "ai-results" in report.problems[0]


@pytest.mark.parametrize(("size", "wrong"), [(1048588 + 65536, False), (1048588 + 65535, True)])
async def test_a_dead_letter_topic_that_is_too_small_is_named(size: int, wrong: bool) -> None:
    cluster = Cluster(
        ai_results={"retention.ms": "1000"},
        ai_results_dlq={"max.message.bytes": str(size)},
        whatsapp_outbound={},
    )
    report = (await ensure_topics(SETTINGS, TopicAdmin(cluster)))[1]
    assert bool(report.problems) is wrong


async def test_a_broker_that_tells_no_settings_has_no_problems() -> None:
    cluster = Cluster(ai_results={"retention.ms": "-1"}, ai_results_dlq={}, whatsapp_outbound={})
    cluster.tells_configs = False
    admin = TopicAdmin(cluster)
    assert await admin.config("ai-results") is None
    assert [report.problems for report in await ensure_topics(SETTINGS, admin)] == [(), (), ()]


async def test_a_topic_that_somebody_else_creates_meanwhile_is_fine() -> None:
    cluster = Cluster(ai_results={})
    cluster.error = 36
    await TopicAdmin(cluster).create("ai-results", 1, 1, {})


async def test_a_refusal_is_told_with_its_reason() -> None:
    cluster = Cluster()
    cluster.error, cluster.message = 38, "replication factor larger than brokers"
    with pytest.raises(TopicError, match="ai-results: replication factor larger than brokers"):
        await TopicAdmin(cluster).create("ai-results", 1, 3, {})
    cluster.message = None
    with pytest.raises(TopicError, match="InvalidReplicationFactor"):
        await TopicAdmin(cluster).create("ai-results", 1, 3, {})


async def test_a_broker_that_creates_no_topics_is_told() -> None:
    class Without(Cluster):
        async def create_topics(self, topics: list[Any]) -> Any:
            raise AttributeError("'NoneType' object has no attribute 'nodeId'")

    with pytest.raises(TopicError, match="does not create topics: create ai-results"):
        await TopicAdmin(Without()).create("ai-results", 1, 1, {})
