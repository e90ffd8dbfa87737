"""What executors of HTTP services have in common: the program's service, or the business's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from streamapp.actions.base import CallContext, ExternalExecutor
from streamapp.actions.clients import START_MARGIN, JsonClient, OwnServices
from streamapp.saga.model import Message
from streamapp.services.errors import NothingThere, Retryable
from streamapp.services.http import HttpRejected

NOT_FOUND = 404


class HttpExecutor(ExternalExecutor):
    """``http`` is the program's client, where its settings name the service; ``timeout`` the limit
    of one call in seconds, as the clients have it."""

    def __init__(
        self,
        http: JsonClient | None,
        timeout: float | None = None,
        own: OwnServices | None = None,
    ) -> None:
        self._http = http
        self._own = own
        if timeout is not None:
            self.max_call_time = timeout + START_MARGIN

    async def ready(self, message: Message) -> bool:
        if self._own is not None:
            await self._own.known(message.business_id)
        return self._client(message) is not None

    def circuit(self, message: Message) -> str:
        """A business's broken service is not everybody's."""
        if self._own is not None and self._own.http(self.service, message.business_id) is not None:
            return f"{self.service}:{message.business_id}"
        return self.service

    def client(self, context: CallContext) -> JsonClient:
        """Raises ``Retryable`` where it was taken away since the attempt began."""
        found = self._client(context.step.message)
        if found is None:
            raise Retryable(f"{self.service}: there is no such service any more", in_doubt=False)
        return found

    def _client(self, message: Message) -> JsonClient | None:
        own = self._own and self._own.http(self.service, message.business_id)
        return own or self._http


@contextmanager
def undoing() -> Iterator[None]:
    """Around a compensation's request: a 404 is ``NothingThere``, of which the saga decides whether
    an earlier request may still be on its way."""
    try:
        yield
    except HttpRejected as error:
        if error.status == NOT_FOUND:
            raise NothingThere(str(error)) from error
        raise
