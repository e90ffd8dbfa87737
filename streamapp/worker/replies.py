"""The sender of replies, wired: made only where the settings name WhatsApp."""

from __future__ import annotations

from collections.abc import Callable

from streamapp.observability.metrics import Metrics
from streamapp.outbound.sender import Limits, Sender
from streamapp.pipeline.ports import DeadLetterSink
from streamapp.resilience.bulkhead import Bulkhead
from streamapp.resilience.circuit_breaker import CircuitBreaker
from streamapp.saga.retry import RetrySchedule
from streamapp.services.whatsapp import MAX_CONNECTIONS, WhatsApp
from streamapp.settings import Settings
from streamapp.storage.deliveries import Deliveries
from streamapp.storage.health import DatabaseHealth
from streamapp.worker.continuity import Continuity
from streamapp.worker.delivery_agent import DeliveryIntake
from streamapp.worker.lanes import Bounds, Lanes, Room
from streamapp.worker.membership import Membership


def delivery_intake(
    settings: Settings,
    client: WhatsApp,
    *,
    table: Deliveries,
    database: DatabaseHealth,
    breaker: CircuitBreaker,
    dead_letters: DeadLetterSink,
    membership: Membership,
    continuity: Continuity,
    metrics: Metrics,
    on_defect: Callable[[BaseException], None],
) -> DeliveryIntake:
    """Everything behind the agent of the outbound topic.

    It has a room of its own: replies that wait for a paused account hold up no AI result.
    """
    room = Room(Bounds.from_settings(settings))
    sender = Sender(
        client,
        table,
        breaker=breaker,
        bulkhead=Bulkhead(MAX_CONNECTIONS),
        schedule=RetrySchedule(settings.retry_delays, jitter=settings.retry_jitter),
        limits=Limits(
            rate=settings.whatsapp_rate,
            recipient_interval=settings.whatsapp_recipient_interval,
            max_wait=settings.whatsapp_max_wait,
        ),
        insist=database.insist,
        told=lambda status: metrics.responded(status=status),
    )
    return DeliveryIntake(
        sender=sender,
        dead_letters=dead_letters,
        lanes=Lanes(room, on_defect),
        room=room,
        membership=membership,
        continuity=continuity,
        group=settings.consumer_group,
        max_unacked=settings.max_unacked,
        max_bytes=settings.max_payload_bytes,
        on_dead_letter=metrics.dead_lettered,
        on_defect=on_defect,
    )
