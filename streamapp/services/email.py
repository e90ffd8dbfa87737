"""E-mail over SMTP.

SMTP knows no idempotency key: a delivery in doubt that is repeated may arrive twice, with the
same Message-ID, by which mail programs and people recognise it.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import ssl
from contextlib import suppress
from email.message import EmailMessage
from email.policy import SMTP as SMTP_POLICY
from email.utils import formatdate, parseaddr
from ipaddress import ip_address
from urllib.parse import unquote, urlsplit

import aiosmtplib
from pydantic import SecretStr

from streamapp.services.errors import Rejected, Retryable
from streamapp.services.excerpt import excerpt

MAX_CONNECTIONS = 20  # at the same time
LONG_BODY = 16_384  # characters; encoding more would hold up the event loop
QUIT_TIMEOUT = 2.0  # seconds for a goodbye that changes nothing

_ADDRESS = re.compile(r"[^\s@<>()\[\]\\,;:\"\x00-\x1f\x7f]+@[^\s@<>()\[\]\\,;:\"\x00-\x1f\x7f]+")
_METHOD = re.compile(r"^METHOD:([A-Z]+)", re.MULTILINE)
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_LINE_BREAKING = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


class Mailer:
    """Delivers mail to the server at ``smtp_url``, one connection a mail.

    ``smtp://`` (port 25 where none is given) turns to TLS when the server offers it, and must
    before it is given a password, unless the server is on this machine; ``smtps://`` (465) is
    TLS from the start. User and password in the URL are percent-encoded. ``timeout`` limits one
    delivery as a whole, in seconds, without the wait for one of ``MAX_CONNECTIONS``;
    ``tls_context`` replaces the system's certificate authorities. Raises ``ValueError`` for an
    address that cannot be used.
    """

    def __init__(
        self,
        smtp_url: SecretStr,
        mail_from: str,
        timeout: float = 10.0,
        *,
        tls_context: ssl.SSLContext | None = None,
    ) -> None:
        parts = urlsplit(smtp_url.get_secret_value())
        if parts.scheme not in ("smtp", "smtps") or not parts.hostname:
            raise ValueError("the mail server's address must be an smtp:// or smtps:// address")
        self._sender = parseaddr(mail_from)[1]
        if not usable_address(self._sender) or _LINE_BREAKING.search(mail_from):
            raise ValueError(f"the sender of e-mail is no usable address: {mail_from!r}")
        self._mail_from = mail_from
        self._domain = self._sender.rpartition("@")[2]
        self._host = parts.hostname
        self._port = parts.port
        self._implicit_tls = parts.scheme == "smtps"
        self._user = unquote(parts.username) if parts.username else None
        self._password = unquote(parts.password or "")
        self._timeout = timeout
        self._tls_context = tls_context
        self._slots = asyncio.Semaphore(MAX_CONNECTIONS)
        self._open: set[aiosmtplib.SMTP] = set()
        self._closed = False

    async def send(
        self,
        to: str,
        subject: str,
        body: str,
        *,
        key: str,
        message_id: str | None = None,
        calendar: str | None = None,
    ) -> None:
        """Deliver one plain-text mail to one address, with an iCalendar document beside the text
        where one is given; its METHOD is repeated in the part's header, as mail programs ask.

        The Message-ID follows from ``key``, or is made from ``message_id`` where one is given,
        so it is the same in every attempt. Raises ``Rejected`` when the server refuses the mail
        for good (a 5xx reply) or ``to`` is no address, else ``Retryable``; that is in doubt
        only when the mail's text was on its way and no reply to it came.
        """
        if not usable_address(to):
            raise Rejected(f"e-mail: no usable address: {excerpt(to)}")
        if self._closed:
            raise Retryable("e-mail: the client is closed", in_doubt=False)
        parts = (to, subject, body, key, message_id or key, calendar)
        if len(body) > LONG_BODY:
            content = await asyncio.to_thread(self._message, *parts)
        else:
            content = self._message(*parts)
        client = self._client()
        sending = False
        try:
            # The wait for a slot is none of the server's time: it must not cut a delivery short.
            async with self._slots:
                self._open.add(client)
                async with asyncio.timeout(self._timeout):
                    await client.connect()
                    await client.mail(self._sender)
                    await client.rcpt(to)
                    sending = True
                    await client.data(content)
                # The mail is accepted, whatever becomes of the goodbye.
                with suppress(aiosmtplib.SMTPException, OSError, TimeoutError):
                    await client.quit(timeout=QUIT_TIMEOUT)
        except aiosmtplib.SMTPResponseException as reply:
            raise self._refused(reply, sending) from None
        except TimeoutError:
            raise Retryable(
                f"e-mail: not delivered within {self._timeout:g} s", in_doubt=sending
            ) from None
        except (aiosmtplib.SMTPException, OSError) as error:
            text = excerpt(str(error), (self._password,))
            raise Retryable(f"e-mail: {type(error).__name__}: {text}", in_doubt=sending) from None
        finally:
            self._open.discard(client)
            client.close()

    async def close(self) -> None:
        """Close all connections. Deliveries under way fail, and so does any later one."""
        self._closed = True
        for client in tuple(self._open):
            client.close()

    def _client(self) -> aiosmtplib.SMTP:
        start_tls: bool | None = False if self._implicit_tls else None
        if start_tls is None and self._user is not None and not _is_local(self._host):
            start_tls = True
        return aiosmtplib.SMTP(
            hostname=self._host,
            port=self._port,
            username=self._user,
            password=self._password if self._user is not None else None,
            timeout=self._timeout,
            use_tls=self._implicit_tls,
            start_tls=start_tls,
            tls_context=self._tls_context,
            # Given, because the default looks this machine's name up in DNS for every mail.
            local_hostname=self._domain,
        )

    def _message(
        self,
        to: str,
        subject: str,
        body: str,
        key: str,
        message_id: str,
        calendar: str | None = None,
    ) -> bytes:
        message = EmailMessage(policy=SMTP_POLICY)
        message["From"] = self._mail_from
        message["To"] = to
        message["Subject"] = _one_line(subject)
        message["Date"] = formatdate()
        message["Message-ID"] = f"<{_id_of(message_id)}@{self._domain}>"
        message["X-Idempotency-Key"] = _one_line(key)
        message["Auto-Submitted"] = "auto-generated"
        # Quoted-printable: NUL, long lines and any text pass every server unharmed.
        message.set_content(_encodable(body), charset="utf-8", cte="quoted-printable")
        if calendar is not None:
            method = _METHOD.search(calendar)
            message.add_alternative(
                calendar,
                subtype="calendar",
                charset="utf-8",
                cte="base64",  # its line ends are part of the format
                params={"method": method[1] if method else "PUBLISH"},
            )
        return message.as_bytes()

    def _refused(
        self, reply: aiosmtplib.SMTPResponseException, sending: bool
    ) -> Rejected | Retryable:
        text = f"e-mail: reply {reply.code}: {excerpt(str(reply.message), (self._password,))}"
        if 500 <= reply.code <= 599:
            return Rejected(text)
        # A 4xx is a definite no for now; any other reply to the text says nothing.
        return Retryable(text, in_doubt=sending and not 400 <= reply.code <= 499)


def usable_address(address: str) -> bool:
    """Whether mail can be sent to it: one plain address, without a name beside it."""
    return len(address) <= 254 and address.isascii() and bool(_ADDRESS.fullmatch(address))


def _is_local(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _encodable(text: str) -> str:
    """The text with lone surrogates, which no mail can carry, as question marks."""
    return text.encode("utf-8", "replace").decode()


def _one_line(text: str) -> str:
    return _LINE_BREAKING.sub(" ", _encodable(text)).strip()


def _id_of(text: str) -> str:
    """``text`` as the left side of a Message-ID; another text never gives the same."""
    if _ID.fullmatch(text):
        return text
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
