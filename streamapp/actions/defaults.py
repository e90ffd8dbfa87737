"""The actions and executors that come with the package."""

from __future__ import annotations

from streamapp.actions.catalogue import CATALOGUE
from streamapp.actions.executors import (
    ActivityExecutor,
    PriorityExecutor,
    ReplyExecutor,
    ReviewExecutor,
    TaskExecutor,
)
from streamapp.actions.external import EmailExecutor, JsonPoster, MailSender, OrderService
from streamapp.actions.registry import ActionRegistry


def default_actions(
    http_order: JsonPoster | None,
    mailer: MailSender | None,
    *,
    order_timeout: float | None = None,
) -> ActionRegistry:
    """A new registry of the whole catalogue.

    The executors of services that are not configured (None) are left out: a stored step that
    needs one waits for a worker that has it. ``order_timeout`` is the limit of one call to the
    order service in seconds; without it a careful default decides when a cancellation that
    found nothing counts.
    """
    registry = ActionRegistry()
    for own in (
        TaskExecutor(),
        ReviewExecutor(),
        PriorityExecutor(),
        ActivityExecutor(),
        ReplyExecutor(),
    ):
        registry.register_executor(own)
    if http_order is not None:
        registry.register_executor(OrderService(http_order, order_timeout))
    if mailer is not None:
        registry.register_executor(EmailExecutor(mailer))
    for name, row in CATALOGUE.items():
        registry.register_action(name, row.kind, row.phase, row.params)
    return registry
