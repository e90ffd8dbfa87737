"""The whole catalogue of a program: what ships, and what other installed packages bring.

A package brings handlers and actions by entry points, each of which names a class:

.. code-block:: toml

    [project.entry-points."streamapp.intents"]
    REWARD_REQUEST = "shop_loyalty.intents:RewardRequest"

    [project.entry-points."streamapp.actions"]
    redeem_points = "shop_loyalty.actions:RedeemPoints"

Whatever is wrong with one stops the start, with a sentence that names the package: a plan must
never be made by half of what is installed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from streamapp.actions.base import ExternalExecutor
from streamapp.actions.clients import Clients
from streamapp.actions.defaults import default_actions
from streamapp.actions.extension import Action, register
from streamapp.actions.registry import ActionError, ActionRegistry
from streamapp.actions.wording import TextFailed
from streamapp.intents.base import IntentHandler
from streamapp.intents.registry import RegistrationError, Registry, default_registry

log = logging.getLogger("streamapp.extensions")

INTENTS = "streamapp.intents"
ACTIONS = "streamapp.actions"
OURS = "streamapp"


class ExtensionError(Exception):
    """A package cannot be used as it is; the message names it and says why."""


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All handlers and actions. ``packages`` tells where those come from that are not ours, by
    intent and by action."""

    intents: Registry
    actions: ActionRegistry
    extensions: tuple[Action, ...] = ()
    packages: Mapping[tuple[str, str], str] = field(default_factory=dict)

    @property
    def services(self) -> tuple[str, ...]:
        """The circuits of the services that actions of other packages call."""
        return tuple(
            dict.fromkeys(
                executor.service
                for action in self.extensions
                for executor in action.executors()
                if isinstance(executor, ExternalExecutor)
            )
        )

    def package(self, group: str, name: str) -> str:
        """The package that an intent (``INTENTS``) or an action (``ACTIONS``) comes from."""
        return self.packages.get((group, name), OURS)

    async def close(self) -> None:
        """Close what actions of other packages hold."""
        for action in self.extensions:
            try:
                await action.close()
            except Exception:
                log.exception("the action %s does not close", action.name)


def load_catalogue(
    clients: Clients,
    found: Iterable[EntryPoint] | None = None,
    *,
    text_failed: TextFailed | None = None,
) -> Catalogue:
    """The catalogue with what is installed; ``found`` are other entry points than those.
    ``text_failed`` is told of templates that fail.

    Actions come first, as handlers name them. Raises ``ExtensionError``.
    """
    points = list(_installed() if found is None else found)
    intents, actions = default_registry(), default_actions(clients, text_failed)
    extensions: list[Action] = []
    packages: dict[tuple[str, str], str] = {}
    for point in _of(points, ACTIONS):
        action = _instance(point, Action)
        try:
            register(actions, action)
        except ActionError as error:
            raise ExtensionError(f"{_place(point)}: {error}") from error
        extensions.append(action)
        packages[ACTIONS, action.name] = _package(point)
    for point in _of(points, INTENTS):
        handler = _instance(point, IntentHandler)
        try:
            intents.register(handler)
            actions.check(handler.emits)
        except (RegistrationError, ActionError) as error:
            raise ExtensionError(f"{_place(point)}: {error}") from error
        packages[INTENTS, handler.intent] = _package(point)
    actions.check(intents.all_emitted())
    return Catalogue(intents, actions, tuple(extensions), packages)


def _installed() -> Iterator[EntryPoint]:
    for group in (ACTIONS, INTENTS):
        yield from entry_points(group=group)


def _of(points: Iterable[EntryPoint], group: str) -> list[EntryPoint]:
    """Those of a group, in an order that does not hang on the file system."""
    return sorted(
        (point for point in points if point.group == group),
        key=lambda point: (_package(point), point.name, point.value),
    )


def _instance(point: EntryPoint, base: type[Any]) -> Any:
    try:
        loaded = point.load()
    except Exception as error:
        raise ExtensionError(f"{_place(point)} cannot be loaded: {error!r}.") from error
    if not (isinstance(loaded, type) and issubclass(loaded, base)):
        raise ExtensionError(
            f"{_place(point)}: {point.value} is no subclass of "
            f"{base.__module__}.{base.__qualname__}."
        )
    try:
        return loaded()
    except Exception as error:
        raise ExtensionError(f"{_place(point)}: cannot be made: {error!r}.") from error


def _package(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else "unknown"


def _place(point: EntryPoint) -> str:
    return f"Package {_package(point)}, entry point {point.name} of {point.group}"
