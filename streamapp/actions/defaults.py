"""The actions and executors that come with the package."""

from __future__ import annotations

from streamapp.actions.calendar import CalendarEventExecutor, InviteExecutor
from streamapp.actions.capabilities import CALENDAR, EMAIL, ORDER
from streamapp.actions.catalogue import CATALOGUE
from streamapp.actions.clients import Clients
from streamapp.actions.contents import ContentExecutor
from streamapp.actions.executors import (
    ActivityExecutor,
    PriorityExecutor,
    ReplyExecutor,
    ReviewExecutor,
    TaskExecutor,
)
from streamapp.actions.external import EmailExecutor, OrderService, SlackExecutor
from streamapp.actions.lookups import LOOK_UPS
from streamapp.actions.registry import ActionRegistry


def default_actions(clients: Clients) -> ActionRegistry:
    """A new registry of the whole catalogue.

    The executors of services that are not configured are left out: a stored step that needs one
    waits for a worker that has it.
    """
    registry = ActionRegistry()
    for own in (
        TaskExecutor(),
        ReviewExecutor(),
        PriorityExecutor(),
        ActivityExecutor(),
        ContentExecutor(),
        ReplyExecutor(),
    ):
        registry.register_executor(own)
    _register_external(registry, clients)
    for name, row in CATALOGUE.items():
        registry.register_action(name, row.kind, row.phase, row.params)
    return registry


def _register_external(registry: ActionRegistry, clients: Clients) -> None:
    http, timeouts = clients.http, clients.timeouts
    if ORDER in http:
        registry.register_executor(OrderService(http[ORDER], timeouts.get(ORDER)))
    if CALENDAR in http:
        registry.register_executor(CalendarEventExecutor(http[CALENDAR], timeouts.get(CALENDAR)))
    for look_up in LOOK_UPS:
        if look_up.service in http:
            registry.register_executor(look_up(http[look_up.service]))
    if clients.mailer is not None:
        registry.register_executor(EmailExecutor(clients.mailer))
        registry.register_executor(
            InviteExecutor(clients.mailer, clients.mail_from, timeouts.get(EMAIL))
        )
    if clients.slack is not None:
        registry.register_executor(SlackExecutor(clients.slack))
