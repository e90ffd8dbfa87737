"""What the error codes of the WhatsApp Cloud API mean for a message: a table.

The codes are those that Meta documents for ``POST /{phone number id}/messages``; it advises to
go by them and not by HTTP statuses, titles or subcodes. Where an answer has no code that is
listed here, its status decides (``by_status``).
"""

from __future__ import annotations

from enum import StrEnum


class Verdict(StrEnum):
    """What became of one attempt to send a message."""

    SENT = "sent"  # WhatsApp has it, under an id
    REJECTED = "rejected"  # not sent, and never will be as it is
    RETRY = "retry"  # not sent, for a reason that passes: the next attempt may do
    PAUSE = "pause"  # not sent, as the account or number may not send: a person has to help
    NUMBER_LIMIT = "number_limit"  # not sent: too many messages from the number
    RECIPIENT_LIMIT = "recipient_limit"  # not sent: too many messages to this customer
    UNKNOWN = "unknown"  # it may have been sent


# Seconds in which nobody sends from the number, or to the customer.
HOLDS = {
    Verdict.PAUSE: 60.0,
    Verdict.NUMBER_LIMIT: 5.0,
    Verdict.RECIPIENT_LIMIT: 30.0,
}

CODES: dict[int, Verdict] = {
    0: Verdict.PAUSE,  # the app user could not be authenticated
    1: Verdict.UNKNOWN,  # invalid request or possible server error
    2: Verdict.RETRY,  # down or overloaded for the moment
    3: Verdict.PAUSE,  # capability or permission
    4: Verdict.PAUSE,  # the app's call limit, of an hour
    10: Verdict.PAUSE,  # permission not granted or removed
    33: Verdict.PAUSE,  # the number was deleted
    100: Verdict.REJECTED,  # invalid parameter
    190: Verdict.PAUSE,  # access token expired
    **dict.fromkeys(range(200, 300), Verdict.PAUSE),  # permissions
    368: Verdict.PAUSE,  # blocked for a violation of policy
    80007: Verdict.PAUSE,  # the account's call limit, of an hour
    130429: Verdict.NUMBER_LIMIT,  # throughput
    130472: Verdict.REJECTED,  # the customer is part of an experiment
    130497: Verdict.REJECTED,  # no messages to the customer's country
    131000: Verdict.RETRY,  # failed to send, something went wrong
    131005: Verdict.PAUSE,  # access denied
    131008: Verdict.REJECTED,  # parameter missing
    131009: Verdict.REJECTED,  # parameter value not valid
    131016: Verdict.RETRY,  # service unavailable
    131021: Verdict.REJECTED,  # the sender's own number
    131026: Verdict.REJECTED,  # undeliverable: not on WhatsApp, or an old version
    131030: Verdict.REJECTED,  # not among the allowed recipients of a test number
    131031: Verdict.PAUSE,  # account locked
    131037: Verdict.PAUSE,  # the number's display name is not approved
    131042: Verdict.PAUSE,  # payment
    131045: Verdict.PAUSE,  # registration of the number
    131047: Verdict.REJECTED,  # more than 24 hours since the customer wrote
    131048: Verdict.PAUSE,  # spam limit of the number
    131049: Verdict.REJECTED,  # Meta chose not to deliver
    131050: Verdict.REJECTED,  # the customer does not want it
    131051: Verdict.REJECTED,  # type of message
    131052: Verdict.REJECTED,  # media
    131053: Verdict.REJECTED,  # media
    131056: Verdict.RECIPIENT_LIMIT,  # pair of number and customer
    131057: Verdict.PAUSE,  # account in maintenance
    133004: Verdict.RETRY,  # server unavailable for the moment
    133010: Verdict.PAUSE,  # the number is not registered
    135000: Verdict.REJECTED,  # user error
}
# An object that is not there is told as an invalid parameter: the number, not the message.
SUBCODES: dict[tuple[int, int], Verdict] = {(100, 33): Verdict.PAUSE}

_BY_STATUS = {
    401: Verdict.PAUSE,
    403: Verdict.PAUSE,
    408: Verdict.UNKNOWN,
    425: Verdict.RETRY,
    429: Verdict.NUMBER_LIMIT,
}


def by_status(status: int) -> Verdict:
    """The verdict on an answer without a known code."""
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    return Verdict.REJECTED if 400 <= status < 500 else Verdict.UNKNOWN


def classify(status: int, code: int | None, subcode: int | None = None) -> Verdict:
    """The verdict on an answer that is no success."""
    if code is None:
        return by_status(status)
    if subcode is not None and (code, subcode) in SUBCODES:
        return SUBCODES[code, subcode]
    return CODES.get(code) or by_status(status)
