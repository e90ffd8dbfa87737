"""From a message to its plan: the one place where plans of results are made."""

from __future__ import annotations

from collections.abc import Sequence

from streamapp.actions.base import Capabilities
from streamapp.actions.planner import make_plan
from streamapp.actions.registry import ActionRegistry
from streamapp.intents.base import Thresholds
from streamapp.intents.registry import Registry, Routed
from streamapp.saga.model import Message, Plan


class Planner:
    """Routes a message and makes its plan. Pure: same message, same plan.

    ``suggested_actions`` tells whether the AI's suggestions are used.
    """

    def __init__(
        self,
        intents: Registry,
        actions: ActionRegistry,
        *,
        thresholds: Thresholds,
        suggested_actions: bool,
    ) -> None:
        self._intents = intents
        self._actions = actions
        self._thresholds = thresholds
        self._suggested_actions = suggested_actions

    def plan(
        self,
        message: Message,
        capabilities: Capabilities,
        *,
        suggested: Sequence[str] = (),
        suggested_response: str | None = None,
        run: int = 0,
    ) -> tuple[Plan, Routed]:
        """The plan of one run for a business of these ``capabilities``, and how it came about.

        ``suggested`` and ``suggested_response`` are what the AI proposed. Raises whatever a
        handler raises.
        """
        routed = self._intents.route(
            message,
            self._thresholds,
            suggested=suggested if self._suggested_actions else (),
            known_actions=self._actions.names,
        )
        plan = make_plan(
            message,
            routed.handler,
            routed.decision,
            run=run,
            registry=self._actions,
            capabilities=capabilities,
            thresholds=self._thresholds,
            suggested=routed.suggested,
            suggested_response=suggested_response,
        )
        return plan, routed
