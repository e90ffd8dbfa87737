"""Every metric there is: names, labels, meaning.

Label values come from closed sets. Ids of leads, messages and tenants are never labels, and an
open text (a source, a lead's status, an intent) is counted under ``other`` unless it is known.
Per process, ``received = processed + duplicate + dead_lettered + released + in flight``.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from functools import cache
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from streamapp.actions.topics import APOLOGY, TOPICS, reply_topic
from streamapp.pipeline.outcomes import Outcome, Reason
from streamapp.resilience.circuit_breaker import CallKind, CircuitState
from streamapp.saga.model import Message

PREFIX = "streamapp"
OTHER = "other"

SOURCES = frozenset({"whatsapp", "sms", "email", "web", "phone", "facebook", "instagram"})
INTENTS = frozenset(
    {
        "ORDER_REQUEST",
        "COMPLAINT",
        "PRICING_INQUIRY",
        "AVAILABILITY_INQUIRY",
        "SCHEDULE_CALL",
        "GENERAL_INQUIRY",
        "UNKNOWN",
    }
)
LEAD_STATES = frozenset(
    {"none", "new", "contacted", "qualified", "needs_review", "negotiation", "won", "lost"}
)
SAGA_STATUSES = frozenset({"COMPLETED", "COMPENSATED", "STUCK", "RESOLVED"})
STEP_STATUSES = frozenset({"done", "failed"})
CHANNELS = frozenset({"whatsapp"})
RESPONSE_STATUSES = frozenset({"queued", "sent", "failed", "unknown", "delivered", "read"})
OPEN_DELIVERIES = ("pending", "sending", "unknown", "failed")
STATUS_RESULTS = frozenset({"applied", "stale", "unknown"})
TIERS = frozenset({"rocksdb", "postgresql"})
RESULTS = frozenset({"hit", "miss"})
TABLE_FAULTS = frozenset({"damaged", "unusable"})
PLACES = frozenset(
    {"pipeline", "handler", "journal", "worker", "outbox", "dead_letters", "deliveries"}
)

StuckLevel = Literal["parked", "given_up"]
Dependency = Literal["database", "broker"]
FenceOutcome = Literal["raised", "dropped"]

_WORK = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_LAG = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
_RATIO = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)


def known(value: str, values: Container[str]) -> str:
    """The value where the set has it, else ``other``."""
    return value if value in values else OTHER


def new_registry() -> CollectorRegistry:
    """A registry with this process's own figures (memory, CPU, file descriptors)."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    return registry


class Metrics:
    """The metrics of one process, on a registry of the caller's.

    ``actions``, ``circuits`` and ``businesses`` are the closed sets that the program is started
    with. Implements ``pipeline.ports.PipelineObserver`` and ``saga.observer.SagaObserver``;
    nothing here raises or waits.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        *,
        actions: Iterable[str] = (),
        circuits: Iterable[str] = (),
        businesses: Iterable[str] = (),
        intents: Iterable[str] = INTENTS,
    ) -> None:
        self.registry = registry
        self._actions = frozenset(actions)
        self._circuits = frozenset(circuits)
        self._businesses = frozenset(businesses)
        self._intents = frozenset(intents)
        self._topics = frozenset({*TOPICS, APOLOGY, *map(reply_topic, self._intents)})

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, namespace=PREFIX, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(name, text, labels, namespace=PREFIX, registry=registry)

        def histogram(
            name: str, text: str, *labels: str, buckets: tuple[float, ...] = _WORK
        ) -> Histogram:
            return Histogram(
                name, text, labels, namespace=PREFIX, registry=registry, buckets=buckets
            )

        self.messages_received = counter(
            "messages_received", "Deliveries taken in.", "source", "business"
        )
        self.messages_processed = counter(
            "messages_processed", "Deliveries by the one outcome each ends in.", "outcome"
        )
        self.messages_duplicate = counter(
            "messages_duplicate", "Deliveries recognised as repetitions.", "source"
        )
        self.message_duration = histogram(
            "message_duration_seconds", "From taking a record in to its outcome."
        )
        self.ai_processing_duration = histogram(
            "ai_processing_duration_seconds", "What the AI reported it took.", "intent"
        )
        self.ai_intents_detected = counter(
            "ai_intents_detected", "Messages by the intent that the AI detected.", "intent"
        )
        self.ai_intent_confidence = histogram(
            "ai_intent_confidence_ratio", "Confidence of the AI.", "intent", buckets=_RATIO
        )
        self.ai_errors = counter("ai_errors", "Events that report an error of the AI.")
        self.suggested_actions_ignored = counter(
            "suggested_actions_ignored", "Suggested actions that are unknown or malformed."
        )
        self.actions = counter("actions", "Steps that ended, by action.", "action", "status")
        self.action_duration = histogram(
            "action_duration_seconds", "From an external step's first attempt to its end.", "action"
        )
        self.action_retries = counter(
            "action_retries", "Attempts that failed and are followed by another.", "action"
        )
        self.action_compensations = counter(
            "action_compensations", "Compensations of steps that ended.", "action", "status"
        )
        self.sagas_finished = counter("sagas_finished", "Runs that ended, by status.", "status")
        self.sagas_stuck = gauge(
            "sagas_stuck",
            "STUCK sagas of the consumer group, by what they wait for: the next try (parked) or a"
            " person (given_up). Each worker shows all of them.",
            "level",
        )
        self.dlq_messages = counter("dlq_messages", "Dead letters written.", "reason")
        self.dlq_unresolved = gauge("dlq_unresolved", "Dead letters not resolved.", "reason")
        self.dlq_oldest_unresolved = gauge(
            "dlq_oldest_unresolved_timestamp_seconds",
            "Unix time of the oldest unresolved dead letter; 0: there is none.",
        )
        self.circuit_state = gauge(
            "circuit_breaker_state", "1 for the state that a circuit is in.", "circuit", "state"
        )
        self.circuit_calls = counter(
            "circuit_breaker_calls", "Calls through a circuit.", "circuit", "kind"
        )
        self.lead_state_changes = counter(
            "lead_state_changes", "Changes of leads' statuses.", "from_state", "to_state"
        )
        self.responses = counter("responses", "Replies to customers.", "channel", "status")
        self.texts_failed = counter(
            "texts_failed", "Templates of businesses that failed: the plain text was used.", "topic"
        )
        self.deliveries = gauge(
            "outbound_deliveries",
            "Replies that did not reach their customer, as far as we know. Each worker shows those"
            " of all.",
            "status",
        )
        self.delivery_statuses = counter(
            "delivery_statuses",
            "Statuses told by WhatsApp; unknown: of no message of ours.",
            "status",
            "result",
        )
        self.in_flight = gauge("in_flight_messages", "Deliveries taken in that have no outcome.")
        self.lanes = gauge("lanes_active", "Leads with work under way or waiting.")
        self.lag = gauge(
            "consumer_lag", "Records not yet acknowledged, by partition.", "topic", "partition"
        )
        self.dedup_lookups = counter(
            "dedup_lookups", "Duplicate checks, by where the answer was found.", "tier", "result"
        )
        self.dedup_table_faults = counter(
            "dedup_table_faults",
            "Partitions of the local table that were damaged and begun anew, or unusable.",
            "kind",
        )
        self.unrestored = gauge(
            "table_restore_remaining",
            "Records of the local table's changelog that are still to be restored; work begins "
            "after them.",
        )
        self.outbox_backlog = gauge("outbox_backlog", "Outbox rows not published yet.")
        self.orphaned_sagas = counter(
            "orphaned_sagas", "Running sagas whose record lies below the committed offset."
        )
        self.fenced = counter(
            "partitions_fenced", "Writes refused as the partition had another epoch.", "outcome"
        )
        self.skips = counter(
            "deliveries_skipped",
            "Places in a topic where fetched records did not reach us and were fetched again.",
            "topic",
        )
        self.loop_lag = histogram(
            "loop_lag_seconds", "How much later than asked the event loop is.", buckets=_LAG
        )
        self.defects = counter("defects", "Errors of our own code, by place.", "where")
        self.outage = gauge("outage", "1 while this cannot be reached.", "dependency")
        self._bind()

    def _bind(self) -> None:
        """Children that are used for every message; they also show as 0 from the start."""
        self._outcomes = {o: self.messages_processed.labels(o.value) for o in Outcome}
        names = (*self._actions, OTHER)
        self._steps = {
            (name, status): self.actions.labels(name, status)
            for name in names
            for status in (*STEP_STATUSES, OTHER)
        }
        self._durations = {name: self.action_duration.labels(name) for name in names}
        # Made on first use; ``known`` keeps their number small.
        self._received = cache(self.messages_received.labels)
        self._detected = cache(self.ai_intents_detected.labels)
        self._confidence = cache(self.ai_intent_confidence.labels)
        self._ai_duration = cache(self.ai_processing_duration.labels)
        self._lookups = cache(self.dedup_lookups.labels)
        self._finished = cache(self.sagas_finished.labels)
        self._responses = cache(self.responses.labels)
        for reason in Reason:
            self.dlq_messages.labels(reason.value)
            self.dlq_unresolved.labels(reason.value)
        for kind in TABLE_FAULTS:
            self.dedup_table_faults.labels(kind)
        for circuit in self._circuits:
            self.circuit_changed(circuit, CircuitState.CLOSED)

    # Messages (pipeline.ports.PipelineObserver)

    def received(self, source: str, business_id: str) -> None:
        self._received(known(source, SOURCES), known(business_id, self._businesses)).inc()

    def delivered(self, outcome: Outcome, source: str, seconds: float) -> None:
        """A delivery ended; ``seconds`` since it was taken in."""
        self._outcomes[outcome].inc()
        self.message_duration.observe(seconds)
        if outcome is Outcome.DUPLICATE:
            self.messages_duplicate.labels(known(source, SOURCES)).inc()

    def understood(self, message: Message, ai_seconds: float | None) -> None:
        """What the AI said of a message, and how long it took by its own account."""
        label = known(message.intent, self._intents)
        self._detected(label).inc()
        self._confidence(label).observe(message.confidence)
        if ai_seconds is not None:
            self._ai_duration(label).observe(ai_seconds)

    def looked_up(self, tier: str, result: str) -> None:
        """A duplicate check got its answer (``hit`` or ``miss``) from this tier."""
        self._lookups(known(tier, TIERS), known(result, RESULTS)).inc()

    def table_failed(self, kind: str) -> None:
        """A partition of the local table was ``damaged`` and begun anew, or is ``unusable``."""
        self.dedup_table_faults.labels(known(kind, TABLE_FAULTS)).inc()

    def defect(self, where: str, error: BaseException) -> None:
        """Code of ours failed where nothing should: the log has the error itself."""
        self.defects.labels(known(where, PLACES)).inc()

    def lagging(self, topic: str, partition: int, records: int) -> None:
        self.lag.labels(topic, str(partition)).set(records)

    def passed_over(self, topic: str) -> None:
        """Records of one of our topics had been fetched and not delivered."""
        self.skips.labels(topic).inc()

    def partition_gone(self, topic: str, partition: int) -> None:
        """The partition has another worker, which reports its lag from now on."""
        # remove() raises for a child that was never made.
        self.lag.labels(topic, str(partition))
        self.lag.remove(topic, str(partition))

    # Sagas (saga.observer.SagaObserver)

    def step_finished(self, action: str, status: str, seconds: float | None) -> None:
        """A step ended; ``seconds`` since its first attempt, None where it is part of a commit."""
        name = known(action, self._actions)
        self._steps[name, known(status, STEP_STATUSES)].inc()
        if seconds is not None:
            self._durations[name].observe(seconds)

    def attempt_failed(self, action: str, error: str) -> None:
        self.action_retries.labels(known(action, self._actions)).inc()

    def compensation_finished(self, action: str, status: str) -> None:
        self.action_compensations.labels(
            known(action, self._actions), known(status, STEP_STATUSES)
        ).inc()

    def lead_changed(self, from_state: str, to_state: str) -> None:
        self.lead_state_changes.labels(
            known(from_state, LEAD_STATES), known(to_state, LEAD_STATES)
        ).inc()

    def saga_finished(self, message: Message, status: str, reason: str | None) -> None:
        self._finished(known(status, SAGA_STATUSES)).inc()

    def dead_lettered(self, reason: str) -> None:
        self.dlq_messages.labels(known(reason, _REASONS)).inc()

    def responded(self, channel: str = "whatsapp", status: str = "queued") -> None:
        """A reply is durable (``queued``), WhatsApp has it (``sent``), and what came of it."""
        self._responses(known(channel, CHANNELS), known(status, RESPONSE_STATUSES)).inc()

    def status_told(self, status: str, result: str) -> None:
        """WhatsApp told a status of a message."""
        self.delivery_statuses.labels(
            known(status, RESPONSE_STATUSES), known(result, STATUS_RESULTS)
        ).inc()

    def deliveries_open(self, by_status: dict[str, int]) -> None:
        """Deliveries as the database has them."""
        for status in OPEN_DELIVERIES:
            self.deliveries.labels(status).set(by_status.get(status, 0))

    def text_failed(self, topic: str) -> None:
        """A template of a business failed, and the plain text was used."""
        self.texts_failed.labels(known(topic, self._topics)).inc()

    # Circuits, dead letters, outages

    def circuit_changed(self, circuit: str, state: str) -> None:
        """A circuit went into a state: all its other states show 0."""
        name = known(circuit, self._circuits)
        for each in CircuitState:
            self.circuit_state.labels(name, each.value).set(each.value == state)

    def circuit_called(self, circuit: str, kind: str) -> None:
        self.circuit_calls.labels(known(circuit, self._circuits), known(kind, _KINDS)).inc()

    def dead_letters_open(self, by_reason: dict[str, int], oldest: float | None) -> None:
        """Unresolved dead letters as the database has them; ``oldest`` is a Unix time."""
        for reason in _REASONS:
            self.dlq_unresolved.labels(reason).set(by_reason.get(reason, 0))
        self.dlq_oldest_unresolved.set(oldest or 0)

    def reachable(self, dependency: Dependency, yes: bool) -> None:
        self.outage.labels(dependency).set(0 if yes else 1)


_KINDS = frozenset(kind.value for kind in CallKind)
_REASONS = frozenset(reason.value for reason in Reason)
