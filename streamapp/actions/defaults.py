"""The actions and executors that come with the package."""

from __future__ import annotations

from streamapp.actions.calendar import CalendarEventExecutor, InviteExecutor
from streamapp.actions.capabilities import EMAIL
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
from streamapp.actions.http_executor import HttpExecutor
from streamapp.actions.lookups import LOOK_UPS
from streamapp.actions.registry import ActionRegistry
from streamapp.actions.wording import TextFailed


def default_actions(clients: Clients, text_failed: TextFailed | None = None) -> ActionRegistry:
    """A new registry of the whole catalogue; ``text_failed`` is told of templates that fail.

    The executors of services that are not configured are left out, but where businesses may have
    their own: a stored step that needs one waits for a worker that has it.
    """
    registry = ActionRegistry()
    for own in (
        TaskExecutor(),
        ReviewExecutor(),
        PriorityExecutor(),
        ActivityExecutor(),
        ContentExecutor(text_failed),
        ReplyExecutor(text_failed),
    ):
        registry.register_executor(own)
    _register_external(registry, clients)
    for name, row in CATALOGUE.items():
        registry.register_action(name, row.kind, row.phase, row.params)
    return registry


def _register_external(registry: ActionRegistry, clients: Clients) -> None:
    timeouts, own = clients.timeouts, clients.own
    kinds: tuple[type[HttpExecutor], ...] = (OrderService, CalendarEventExecutor, *LOOK_UPS)
    for kind in kinds:
        http = clients.http.get(kind.service)
        if http is not None or own is not None:  # a business may have one
            registry.register_executor(kind(http, timeouts.get(kind.service), own))
    if clients.mailer is not None:
        registry.register_executor(EmailExecutor(clients.mailer))
        registry.register_executor(
            InviteExecutor(clients.mailer, clients.mail_from, timeouts.get(EMAIL))
        )
    if clients.slack is not None:
        registry.register_executor(SlackExecutor(clients.slack, own))
