"""A worker of streamapp that counts nothing: ``... without_metrics worker``."""

from __future__ import annotations

from typing import Any

from streamapp.cli import main
from streamapp.observability.metrics import Metrics

COUNTING = (
    "received",
    "delivered",
    "understood",
    "looked_up",
    "step_finished",
    "attempt_failed",
    "compensation_finished",
    "lead_changed",
    "saga_finished",
    "dead_lettered",
    "responded",
    "circuit_called",
)


def nothing(*_: Any, **__: Any) -> None:
    """Stands in for what would count."""


if __name__ == "__main__":
    for name in COUNTING:
        getattr(Metrics, name)  # a name that is gone would leave its counting on
        setattr(Metrics, name, nothing)
    main()
