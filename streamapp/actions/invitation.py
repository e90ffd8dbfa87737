"""The iCalendar document of an invitation, and of its withdrawal (RFC 5545, 5546)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from icalendar import Calendar, Event, vCalAddress

DURATION = timedelta(minutes=30)

Method = Literal["REQUEST", "CANCEL"]


@dataclass(frozen=True, slots=True)
class Invitation:
    """A call to which somebody is invited. ``uid`` names it for good: a document with the same
    one changes or cancels what the mail program already has."""

    uid: str
    summary: str
    start: datetime
    organizer: str
    attendee: str


def document(invitation: Invitation, method: Method, stamp: datetime) -> str:
    """The invitation, or its withdrawal, as made at ``stamp``."""
    cancelled = method == "CANCEL"
    event = Event()
    event.add("uid", invitation.uid)
    event.add("dtstamp", stamp)
    event.add("dtstart", invitation.start)
    event.add("dtend", invitation.start + DURATION)
    event.add("summary", invitation.summary)
    event.add("sequence", 1 if cancelled else 0)
    event.add("status", "CANCELLED" if cancelled else "CONFIRMED")
    event.add("organizer", vCalAddress(f"mailto:{invitation.organizer}"))
    attendee = vCalAddress(f"mailto:{invitation.attendee}")
    for name, value in (
        ("CUTYPE", "INDIVIDUAL"),
        ("ROLE", "REQ-PARTICIPANT"),
        ("PARTSTAT", "NEEDS-ACTION"),
        ("RSVP", "TRUE"),
    ):
        attendee.params[name] = value
    event.add("attendee", attendee)
    calendar = Calendar()
    calendar.add("prodid", "-//streamapp//streamapp//EN")
    calendar.add("version", "2.0")
    calendar.add("method", method)
    calendar.add_component(event)
    found: bytes = calendar.to_ical()
    return found.decode()
