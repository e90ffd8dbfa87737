"""How a call to an external service can fail; what each failure means is decided by the saga."""

from __future__ import annotations


class ServiceError(Exception):
    """Root of the failures of an external call. Messages must carry no secret."""


class Rejected(ServiceError):
    """The service understood the request and definitely refused it: never retried."""


class Busy(ServiceError):
    """The same idempotency key is being worked on (HTTP 409): ask again, no attempt is spent."""


class Retryable(ServiceError):
    """The service failed or could not be reached.

    ``in_doubt`` is true when the request may have arrived, so its effect may exist.
    ``retry_after`` is the wait in seconds that the service asked for, if it did.
    """

    def __init__(self, message: str, *, in_doubt: bool, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.in_doubt = in_doubt
        self.retry_after = retry_after


class NotNow(ServiceError):
    """Nothing was done because of a limit on the rate of requests, be it the service's word or the
    client's own: ask again after ``seconds``, no attempt is spent."""

    def __init__(self, message: str, seconds: float) -> None:
        super().__init__(message)
        self.seconds = seconds


class NothingThere(ServiceError):
    """A compensation found nothing under its key. That settles it only once no earlier request
    can still be on its way (protocol, 4)."""
