"""Where the parts tell what happens: metrics, and the few log lines worth a person's time."""

from __future__ import annotations

import logging

from streamapp.observability.metrics import Metrics
from streamapp.pipeline.outcomes import Outcome
from streamapp.resilience.circuit_breaker import CallKind, CircuitState
from streamapp.saga.model import Message

log = logging.getLogger("streamapp")


class Observer:
    """Implements the observers of pipeline, saga and circuits on ``Metrics``."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._circuits: dict[str, CircuitState] = {}
        self.received = metrics.received
        self.looked_up = metrics.looked_up
        self.understood = metrics.understood
        self.dead_lettered = metrics.dead_lettered
        self.step_finished = metrics.step_finished
        self.attempt_failed = metrics.attempt_failed
        self.compensation_finished = metrics.compensation_finished
        self.lead_changed = metrics.lead_changed
        self.text_failed = metrics.text_failed

    def delivered(self, outcome: Outcome, source: str, seconds: float) -> None:
        self._metrics.delivered(outcome, source, seconds)

    def responded(self) -> None:
        self._metrics.responded()

    def status_told(self, status: str, result: str) -> None:
        """WhatsApp told a status, and what became of that."""
        self._metrics.status_told(status, result)
        if result == "applied":
            self._metrics.responded(status=status)

    def saga_finished(self, message: Message, status: str, reason: str | None) -> None:
        self._metrics.saga_finished(message, status, reason)
        if status != "COMPLETED":
            log.warning("saga %s ended %s (%s)", message.processing_id, status, reason)

    def defect(self, where: str, error: BaseException) -> None:
        self._metrics.defect(where, error)
        log.error("defect in %s: %r", where, error, exc_info=error)

    def fenced(self, dropped: bool) -> None:
        """A write was refused; dropped: the partition is another worker's by now."""
        self._metrics.fenced.labels("dropped" if dropped else "raised").inc()

    def on_call(self, name: str, kind: CallKind) -> None:
        self._metrics.circuit_called(_service(name), kind.value)

    def on_state(self, name: str, state: CircuitState) -> None:
        if _service(name) == name:  # several of one name would contradict one another
            self._metrics.circuit_changed(name, state.value)
        if self._circuits.get(name, CircuitState.CLOSED) is not state:
            log.warning("circuit %s is %s", name, state.value)
        self._circuits[name] = state


def _service(circuit: str) -> str:
    """The service of a circuit, also of that of a business's own."""
    return circuit.partition(":")[0]
