"""Effects in our own database, as data.

An executor returns operations; the journal writes them in the transaction that
marks their step DONE (protocol, 3), so an effect exists if and only if its step
is DONE. Being plain rows, the operations of many sagas are written by one
multi-row statement. Ids are deterministic (``saga.ids``), so that a repetition
finds its own row.
"""

from __future__ import annotations

from dataclasses import field
from typing import Any, Literal

from streamapp.values import value

Priority = Literal["low", "normal", "high", "critical"]
JsonObject = dict[str, Any]


@value
class InsertTask:
    """A task for a person. ``due_in`` counts seconds from the transaction's time."""

    task_id: str
    task_type: str
    title: str
    description: str
    priority: Priority
    assigned_to_type: str
    assigned_to_id: str | None
    due_in: float | None
    metadata: JsonObject = field(default_factory=dict)


@value
class CancelTask:
    """Cancels a task of this saga if it is there and not finished; its metadata is kept and
    ``cancellation_reason`` added."""

    task_id: str
    reason: str


@value
class RaisePriority:
    """Raises the priority of all tasks of this run, never lowers it, and brings their due
    times to at most ``due_within`` seconds from the transaction's time."""

    priority: Priority
    due_within: float


@value
class InsertActivity:
    """A row in the lead's history."""

    activity_id: str
    activity_type: str
    description: str
    actor_type: str = "system"
    actor_name: str = "streamapp"
    channel: str = "whatsapp"
    message_content: str | None = None
    metadata: JsonObject = field(default_factory=dict)


@value
class SetLeadStatus:
    """Sets the lead's status. Its step's output gets ``previous_status`` (absent when the lead
    is not in ``leads``) and, for the metric, ``status``."""

    status: str


@value
class RestoreLeadStatus:
    """Restores a status, but only where it is still the one that this saga had set."""

    expected: str
    previous: str


@value
class SendMessage:
    """A record for ``whatsapp-outbound``, published from the outbox after the commit."""

    message_id: str
    to: str | None
    text: str


Operation = (
    InsertTask
    | CancelTask
    | RaisePriority
    | InsertActivity
    | SetLeadStatus
    | RestoreLeadStatus
    | SendMessage
)
