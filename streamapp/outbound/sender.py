"""Brings a reply to its end: sent once, definitely not sent, or visibly unknown.

WhatsApp keeps no idempotency key, so ``sending`` is durable before a request begins, and a
request whose end nobody knows (no answer, a connection that broke, a crash in between) is not
made again: the row says ``unknown`` until WhatsApp's webhook, or a person, knows better.

A reply that may not be sent now (a paused account, an open circuit, a limit on rates) waits
parked, with the later ones of its lead behind it, for at most ``max_wait`` seconds in all, and is
``failed`` then: nothing stops a partition for good.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from uuid import UUID, uuid4

from streamapp.outbound.ports import Client, Insist, Ours, Table
from streamapp.outbound.reply import Reply
from streamapp.outbound.statuses import Status, reference
from streamapp.resilience import crash_points
from streamapp.resilience.bulkhead import Bulkhead
from streamapp.resilience.circuit_breaker import CircuitBreaker, Permit
from streamapp.saga.attempts import CALL_WITHIN
from streamapp.saga.parking import Parking, sleep
from streamapp.saga.retry import RetrySchedule
from streamapp.services.pace import Pace
from streamapp.services.whatsapp import MAX_CHARACTERS, Attempt
from streamapp.services.whatsapp_codes import HOLDS, Verdict
from streamapp.storage.deliveries import Delivery

WINDOW = timedelta(hours=24)  # in which WhatsApp takes free text after a customer wrote
SHOWN_AFTER = 5.0  # seconds; a longer wait shows in the table
LOOK = 10.0  # seconds; how long a wait goes on without a look at what has changed


class OtherReply(Exception):
    """A reply with this id, and another lead, number or text, is there already."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one worker; times in seconds."""

    rate: float  # messages a second from the number
    recipient_interval: float  # between two messages to one customer
    max_wait: float


class _Released(Exception):
    """The record is no longer ours: its next owner goes on."""


class _GivenUp(Exception):
    """It waited for as long as it may; the reason and a sentence."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class Sender:
    """Sends from one number, for all lanes of a worker.

    ``insist`` repeats a call to the table while the database is away. ``told`` gets the status of
    each reply that came to an end here.
    """

    def __init__(
        self,
        client: Client,
        table: Table,
        *,
        breaker: CircuitBreaker,
        bulkhead: Bulkhead,
        schedule: RetrySchedule,
        limits: Limits,
        insist: Insist,
        told: Callable[[str], None],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.client = client
        self.table = table
        self.breaker = breaker
        self.bulkhead = bulkhead
        self.schedule = schedule
        self.max_wait = limits.max_wait
        self.numbers = Pace(1 / limits.rate, LOOK)
        self.recipients = Pace(limits.recipient_interval, max(LOOK, limits.recipient_interval))
        self.insist = insist
        self.told = told
        self.now = now
        self._held: tuple[float, str, str] | None = None  # until, reason, in words

    def hold(self, verdict: Verdict, seconds: float, text: str) -> None:
        """Nobody sends from the number for so many seconds."""
        self._held = (time.monotonic() + seconds, verdict, text)
        self.numbers.hold(self.client.number, seconds)

    def may_send(self) -> None:
        """A message was taken: the number may send."""
        self._held = None

    @property
    def held(self) -> tuple[str, str] | None:
        """Why nobody sends from the number just now: the verdict, and in words."""
        if self._held is None or time.monotonic() >= self._held[0]:
            return None
        return self._held[1:]

    async def deliver(self, reply: Reply, parking: Parking, ours: Ours) -> bool:
        """Bring the reply to its end; True once that is durable. False when ``ours`` says that the
        record is another's by now. Raises ``OtherReply``."""
        try:
            await _Sending(self, reply, parking, ours).carry_out()
        except _Released:
            return False
        return True


class _Sending:
    """One reply on its way."""

    def __init__(self, sender: Sender, reply: Reply, parking: Parking, ours: Ours) -> None:
        self._sender = sender
        self._reply = reply
        self._parking = parking
        self._ours = ours
        self._began = time.monotonic()
        self._delivery = Delivery(Status.PENDING)
        self._has_turn = False  # with the recipient, in this attempt
        self._shown: str | None = None  # what the row says that it waits for

    async def carry_out(self) -> None:
        """Until the row is settled."""
        while True:
            await self._load()
            if self._delivery.status is Status.SENDING:
                await self._interrupted()
                return
            if self._delivery.status is not Status.PENDING:
                return
            if await self._refused():
                return
            try:
                await self._wait(self._delivery.due_in, self._shown or Verdict.RETRY, "")
                if await self._attempt():
                    return
            except _GivenUp as given_up:
                await self._end(given_up.reason, str(given_up))
                return

    async def _load(self) -> None:
        found = await self._sender.insist(lambda: self._sender.table.find(self._reply))
        if found is not None and not found.same:
            raise OtherReply(f"another reply has the id {self._reply.message_id}")
        if found is not None:
            self._began = time.monotonic()
            self._delivery = found
            self._shown = found.reason

    async def _interrupted(self) -> None:
        """A request was begun and its end is not known to us: it is not made again."""
        claim = self._delivery.claim
        assert claim is not None
        text = "the worker stopped between the request and noting what came of it"
        if await self._settle(
            lambda: self._sender.table.unknown(
                self._reply.message_id, claim, "interrupted", None, text
            )
        ):
            self._sender.told(Status.UNKNOWN)

    async def _refused(self) -> bool:
        """Whether it is not sent at all, for what is known before the first request."""
        reply, delivery = self._reply, self._delivery
        if not any(character.isdigit() for character in reply.recipient):
            reason, text = "no_recipient", "nobody knows the customer's number"
        elif len(reply.text) > MAX_CHARACTERS:
            reason = "too_long"
            text = f"{len(reply.text)} characters, and WhatsApp takes {MAX_CHARACTERS}"
        elif self._sender.now() - max(reply.created_at, _or_never(delivery.retried_at)) > WINDOW:
            reason, text = "window_closed", "more than 24 hours old: WhatsApp would not take it"
        else:
            return False
        await self._end(reason, text)
        return True

    async def _end(self, reason: str, text: str) -> None:
        if await self._settle(lambda: self._sender.table.refuse(self._reply, reason, text)):
            self._sender.told(Status.FAILED)

    # Waiting

    def _left(self) -> float:
        """Seconds that it may still wait for somebody else."""
        since = time.monotonic() - self._began
        return self._sender.max_wait - self._delivery.waited - since

    def _check(self) -> None:
        if not self._ours():
            raise _Released

    async def _wait(self, seconds: float, reason: str, text: str) -> None:
        """Wait parked for what comes by itself: a turn, the next attempt."""
        if seconds > 0:
            await self._show(seconds, reason, text)
            await sleep(self._parking, seconds)
            self._check()

    async def _show(self, seconds: float, reason: str, text: str) -> None:
        if seconds >= SHOWN_AFTER and reason != self._shown:
            self._shown = reason
            await self._sender.insist(lambda: self._sender.table.wait(self._reply, reason, text))
        self._check()

    def _not_too_long(self, reason: str, text: str) -> None:
        """What is waited for may never come."""
        if self._left() <= 0:
            waited = f"given up after {self._sender.max_wait:g} s"
            raise _GivenUp("waited_too_long", f"{waited}: {reason}: {text}")

    async def _until_admitted(self) -> None:
        """It is this reply's turn: with its customer, and with the number."""
        sender, key = self._sender, self._reply.message_id
        while not self._has_turn and (left := sender.recipients.wait(self._place, key)) > 0:
            await self._wait(
                left, Verdict.RECIPIENT_LIMIT, "the customer was sent another just now"
            )
        self._has_turn = True
        while (left := sender.numbers.wait(sender.client.number, key)) > 0:
            reason, text = sender.held or (Verdict.NUMBER_LIMIT, "others are first")
            if sender.held is not None:
                self._not_too_long(reason, text)
                left = min(left, max(self._left(), 0.0))
            await self._wait(left, reason, text)

    @property
    def _place(self) -> str:
        return "".join(character for character in self._reply.recipient if character.isdigit())

    async def _circuit(self) -> None:
        """Wait until the circuit may admit a call."""
        reason, text = "circuit_open", f"circuit {self._sender.breaker.name} is open"
        self._not_too_long(reason, text)
        left = min(LOOK, self._left())
        await self._show(left, reason, text)
        async with self._parking.parked():
            await self._sender.breaker.wait_for_change(left)
        self._check()

    # Attempts

    async def _attempt(self) -> bool:
        """One attempt; whether the reply has come to its end."""
        while True:
            await self._until_admitted()
            in_line = partial(self._parking.parked, in_line=True)
            async with self._sender.bulkhead.place(in_line):
                self._check()
                permit = self._sender.breaker.try_acquire()
                if permit is not None:
                    try:
                        return await self._send(permit)
                    finally:
                        permit.cancel()  # counts only where nothing else was reported
            await self._circuit()

    async def _send(self, permit: Permit) -> bool:
        sender, reply, claim = self._sender, self._reply, uuid4()
        committed, number = 0.0, None
        while time.monotonic() - committed > CALL_WITHIN:
            # Made anew when the process stood still meanwhile: who took the row over has it then.
            number = await sender.insist(lambda: sender.table.begin(reply, claim))
            if number is None:
                return False  # it is looked at again
            committed = time.monotonic()
        assert number is not None
        if not self._ours():
            await self._postpone(claim, Attempt(Verdict.PAUSE), "released", 0.0, spent=False)
            raise _Released
        crash_points.reach("delivery.sending")
        permit.begin()
        try:
            attempt = await sender.client.send(
                reply.recipient, reply.text, reference=reference(reply.message_id, number)
            )
        finally:
            crash_points.reach("delivery.answered")
        self._has_turn = False
        return await self._judge(attempt, claim, permit)

    async def _judge(self, attempt: Attempt, claim: UUID, permit: Permit) -> bool:
        sender, message_id = self._sender, self._reply.message_id
        code, error = attempt.code, attempt.error
        match attempt.verdict:
            case Verdict.SENT:
                permit.success()
                sender.may_send()
                id_ = attempt.whatsapp_id
                assert id_ is not None
                if await self._settle(lambda: sender.table.sent(message_id, claim, id_)):
                    sender.told(Status.SENT)
                return True
            case Verdict.REJECTED:
                permit.success()  # the service works; it is the message that it refuses
                await self._fail(claim, "rejected", attempt)
                return True
            case Verdict.UNKNOWN:
                permit.failure()
                if await self._settle(
                    lambda: sender.table.unknown(message_id, claim, "no_answer", code, error)
                ):
                    sender.told(Status.UNKNOWN)
                return True
            case Verdict.RETRY:
                permit.failure()
                return await self._retry(claim, attempt)
        permit.cancel()  # that it may not send says nothing of the service's health
        return await self._hold(claim, attempt)

    async def _retry(self, claim: UUID, attempt: Attempt) -> bool:
        made = self._delivery.attempts + 1
        schedule = self._sender.schedule
        if made >= schedule.max_attempts:
            await self._fail(claim, "retries_exhausted", attempt)
            return True
        delay = schedule.delay_after(made, retry_after=attempt.retry_after, cap=self._left())
        await self._postpone(claim, attempt, "retry", delay, spent=True)
        return False

    async def _hold(self, claim: UUID, attempt: Attempt) -> bool:
        """Nobody sends there for a while; the attempt is not counted."""
        seconds = max(HOLDS[attempt.verdict], attempt.retry_after or 0.0)
        if attempt.verdict is Verdict.RECIPIENT_LIMIT:
            self._sender.recipients.hold(self._place, seconds)
        else:
            self._sender.hold(attempt.verdict, seconds, attempt.error)
        if self._left() <= 0:
            await self._fail(claim, "waited_too_long", attempt)
            return True
        await self._postpone(claim, attempt, attempt.verdict, 0.0, spent=False)
        return False

    async def _postpone(
        self, claim: UUID, attempt: Attempt, reason: str, delay: float, *, spent: bool
    ) -> None:
        await self._settle(
            lambda: self._sender.table.postpone(
                self._reply.message_id,
                claim,
                reason,
                attempt.code,
                attempt.error,
                delay=delay,
                spent=spent,
            )
        )

    async def _fail(self, claim: UUID, reason: str, attempt: Attempt) -> None:
        if await self._settle(
            lambda: self._sender.table.failed(
                self._reply.message_id, claim, reason, attempt.code, attempt.error
            )
        ):
            self._sender.told(Status.FAILED)

    async def _settle(self, write: Callable[[], Awaitable[bool]]) -> bool:
        made = bool(await self._sender.insist(write))
        crash_points.reach("delivery.settled")
        return made


def _or_never(time_: datetime | None) -> datetime:
    return time_ or datetime.min.replace(tzinfo=UTC)
