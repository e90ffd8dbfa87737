"""SCHEDULE_CALL: the customer wants to be called."""

from __future__ import annotations

from streamapp.intents.base import Decision, IntentHandler, Thresholds
from streamapp.intents.entities import is_urgent, lookup, name_for_reply
from streamapp.saga.model import Message


class ScheduleCallHandler(IntentHandler):
    """Arranges the call at the time that is asked for; without one, asks for it."""

    intent = "SCHEDULE_CALL"
    priority = 6
    emits = frozenset(
        {
            "check_calendar_availability",
            "assign_to_sales",
            "validate_time_slot",
            "check_agent_availability",
            "create_calendar_event",
            "send_calendar_invite",
            "request_time_confirmation",
            "send_availability_form",
            "notify_scheduling_team",
            "priority_high",
            "find_immediate_slot",
        }
    )

    def decide(self, message: Message, thresholds: Thresholds) -> Decision:
        entities = message.entities
        date = lookup(entities, "preferred_date")
        time = lookup(entities, "preferred_time")
        slot_known = date is not None or time is not None
        confident = message.confidence > thresholds.high
        actions = ["check_calendar_availability", "assign_to_sales"]
        if not slot_known:
            actions += ("send_availability_form", "notify_scheduling_team")
            why = ["neither date nor time known: send_availability_form, notify_scheduling_team"]
        else:
            actions += ("validate_time_slot", "check_agent_availability")
            why = ["date or time known: validate_time_slot, check_agent_availability"]
            if confident:
                actions += ("create_calendar_event", "send_calendar_invite")
                why.append("high confidence: create_calendar_event, send_calendar_invite")
            else:
                actions.append("request_time_confirmation")
                why.append("no high confidence: request_time_confirmation")
        if not confident:
            why.append("no high confidence: escalated")
        if is_urgent(entities):
            actions += ("priority_high", "find_immediate_slot")
            why.append("urgency: priority_high, find_immediate_slot")
        return Decision(
            actions=tuple(actions),
            escalate=not confident,
            metadata={
                "requested_slot": {"preferred_date": date, "preferred_time": time},
                "purpose": lookup(entities, "purpose"),
                "requires_confirmation": not slot_known,
            },
            reply=_reply(slot_known, confident, name_for_reply(date), name_for_reply(time)),
            promise=None if slot_known else "Please tell us which day and time suit you.",
            why=tuple(why),
        )


def _reply(slot_known: bool, confident: bool, date: str | None, time: str | None) -> str:
    """It says no more than that the call is being arranged: whether the slot is free turns out
    while the work goes on."""
    if not slot_known:
        return "Thank you, we are glad to call you."
    slot = "".join(f", {part}" for part in (date, time) if part)
    if confident:
        return f"Thank you. We are arranging your call{slot} and will confirm it shortly."
    return (
        f"Thank you. So that we call you at the right time{slot}, please confirm the day and "
        "the time you would like."
    )
