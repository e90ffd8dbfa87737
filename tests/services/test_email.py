"""The mailer against a real SMTP server, and against one that follows a script."""

from __future__ import annotations

import asyncio
import socket
import traceback
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from streamapp.services import email as mail
from streamapp.services.email import Mailer
from streamapp.services.errors import Rejected, Retryable, ServiceError
from tests.services.servers import PASSWORD, Mailbox, scripted

FROM = "Stream App <app@example.org>"
TO = "sales@example.org"
KEY = "0a1b2c3d-4e5f"
DEADLINE = 20.0


def mailer(port: int, *, timeout: float = 10.0, login: str = "", scheme: str = "smtp") -> Mailer:
    return Mailer(SecretStr(f"{scheme}://{login}127.0.0.1:{port}"), FROM, timeout)


async def send(port: int, **options: Any) -> None:
    client = mailer(port, **options)
    try:
        await client.send(TO, "Hello", "Body", key=KEY)
    finally:
        await client.close()


async def failure(port: int, **options: Any) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        await send(port, **options)
    shown = "".join(traceback.format_exception(caught.value))
    assert PASSWORD not in shown
    assert "p%40ss" not in shown
    return caught.value


async def in_doubt(port: int, **options: Any) -> bool:
    error = await failure(port, **options)
    assert isinstance(error, Retryable)
    return error.in_doubt


# What arrives


async def test_a_mail_arrives(mailbox: Mailbox, port: int) -> None:
    client = mailer(port)
    body = "First line\n.\n..two dots\nSch\u00f6n \U0001f600\n" + "long " * 500
    await client.send(TO, "Gr\u00fc\u00dfe", body, key=KEY)
    await client.close()
    (envelope,) = mailbox.envelopes
    assert envelope.mail_from == "app@example.org"
    assert envelope.rcpt_tos == [TO]
    (message,) = mailbox.messages
    assert message["From"] == FROM
    assert message["To"] == TO
    assert message["Subject"] == "Gr\u00fc\u00dfe"
    assert message["Message-ID"] == f"<{KEY}@example.org>"
    assert message["X-Idempotency-Key"] == KEY
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["Date"].datetime is not None
    assert message.get_content_type() == "text/plain"
    assert message.get_content().replace("\r\n", "\n") == body + "\n"
    assert max(len(line) for line in envelope.content.split(b"\r\n")) <= 78


async def test_a_long_text_arrives_whole(mailbox: Mailbox, port: int) -> None:
    body = "Sch\u00f6n und lang\n" * 10_000
    client = mailer(port)
    await client.send(TO, "Hello", body, key=KEY)
    (message,) = mailbox.messages
    assert message.get_content().replace("\r\n", "\n") == body


async def test_what_no_mail_can_carry_is_replaced(mailbox: Mailbox, port: int) -> None:
    await mailer(port).send(TO, "Lone \ud800", "Lone \ud800 and \0", key=KEY)
    (message,) = mailbox.messages
    assert message["Subject"] == "Lone ?"
    assert message.get_content().rstrip() == "Lone ? and \0"


async def test_the_message_id_is_the_same_in_every_attempt(mailbox: Mailbox, port: int) -> None:
    client = mailer(port)
    odd = "key with\r\nX-Evil: 1 \u00e9" + "x" * 200
    for key in (KEY, KEY, odd, odd, odd + "."):
        await client.send(TO, "Hello", "Body", key=key)
    await client.send(TO, "Hello", "Body", key=KEY, message_id="told")
    ids = [message["Message-ID"] for message in mailbox.messages]
    assert ids[0] == ids[1]
    assert ids[2] == ids[3]
    assert len(set(ids)) == 4
    assert ids[5] == "<told@example.org>"
    assert all(len(header) < 100 and " " not in header for header in ids)
    assert mailbox.messages[2]["X-Evil"] is None
    assert mailbox.messages[5]["X-Idempotency-Key"] == KEY


ANY_TEXT = st.text(st.characters(codec=None, categories=None), max_size=120)


@given(subject=ANY_TEXT, key=ANY_TEXT, body=ANY_TEXT)
def test_no_text_makes_a_header(subject: str, key: str, body: str) -> None:
    message = mailer(1)._message(TO, subject, body, key, key)
    head = message.partition(b"\r\n\r\n")[0]
    names = [line.partition(b":")[0] for line in head.split(b"\r\n") if line[:1] not in b" \t"]
    assert sorted(names) == [
        b"Auto-Submitted",
        b"Content-Transfer-Encoding",
        b"Content-Type",
        b"Date",
        b"From",
        b"MIME-Version",
        b"Message-ID",
        b"Subject",
        b"To",
        b"X-Idempotency-Key",
    ]


@pytest.mark.parametrize("line_break", ["\n", "\r\n", "\r", "\x0b", "\x85", "\u2028", "\0"])
async def test_a_subject_with_line_breaks_stays_one_line(
    mailbox: Mailbox, port: int, line_break: str
) -> None:
    client = mailer(port)
    await client.send(TO, f"One{line_break}Bcc: all@example.org", "Body", key=KEY)
    (message,) = mailbox.messages
    assert message["Subject"] == "One Bcc: all@example.org"
    assert message["Bcc"] is None


@pytest.mark.parametrize(
    "to",
    [
        "",
        "sales",
        "a@b\r\nRCPT TO:<c@d>",
        "a@b, c@d",
        "<a@b>",
        "a b@c",
        "caf\u00e9@example.org",
        "a@b@c",
        "x" * 250 + "@example.org",
    ],
)
async def test_what_is_no_address_is_rejected(mailbox: Mailbox, port: int, to: str) -> None:
    with pytest.raises(Rejected, match="no usable address"):
        await mailer(port).send(to, "Hello", "Body", key=KEY)
    assert mailbox.envelopes == []


async def test_user_and_password_come_from_the_url(mailbox: Mailbox, port: int) -> None:
    await send(port, login="us%40er:p%40ss%20word%2Fsecret@")
    assert mailbox.logins == [(b"us@er", PASSWORD.encode())]
    assert len(mailbox.envelopes) == 1


async def test_a_wrong_password_is_rejected_and_not_shown(mailbox: Mailbox, port: int) -> None:
    error = await failure(port, login="user:wr%40ng@")
    assert isinstance(error, Rejected)
    assert "wr@ng" not in str(error)
    assert mailbox.envelopes == []


# Replies


@pytest.mark.parametrize("command", ["MAIL", "RCPT", "DATA"])
@pytest.mark.parametrize("code", [550, 554, 451, 452, 421])
async def test_replies_of_refusal(mailbox: Mailbox, port: int, command: str, code: int) -> None:
    mailbox.replies[command] = f"{code} not this one"
    error = await failure(port)
    assert f"reply {code}: not this one" in str(error)
    if code >= 500:
        assert isinstance(error, Rejected)
    else:
        assert isinstance(error, Retryable)
        assert error.in_doubt is False


@pytest.mark.parametrize(("greeting", "kind"), [("554 no", Rejected), ("421 busy", Retryable)])
async def test_greetings_of_refusal(greeting: str, kind: type[ServiceError]) -> None:
    async with scripted({}, greeting=greeting) as port:
        error = await failure(port)
    assert isinstance(error, kind)
    assert not getattr(error, "in_doubt", False)


@pytest.mark.parametrize(
    ("replies", "doubt"),
    [
        ({"DATA": "550 no"}, None),
        ({"DATA": "451 later"}, False),
        ({"text": "354 what?"}, True),
        ({"text": "garbage"}, True),
        ({"MAIL": "garbage"}, False),
        ({"RCPT": "354 what?"}, False),
    ],
)
async def test_odd_replies(replies: dict[str, str], doubt: bool | None) -> None:
    async with scripted(replies) as port:
        error = await failure(port)
    if doubt is None:
        assert isinstance(error, Rejected)
    else:
        assert isinstance(error, Retryable)
        assert error.in_doubt is doubt


async def test_an_echoed_password_is_masked() -> None:
    async with scripted(
        {"AUTH": f"535 wrong: {PASSWORD}", "EHLO": "250-me\r\n250 AUTH PLAIN"}
    ) as port:
        error = await failure(port, login="user:p%40ss%20word%2Fsecret@")
    assert str(error) == "e-mail: reply 535: wrong: ***"


# Silence and broken connections


@pytest.mark.parametrize("how", ["close", "hang"])
@pytest.mark.parametrize(
    ("where", "doubt"),
    [
        ("greeting", False),
        ("EHLO", False),
        ("MAIL", False),
        ("RCPT", False),
        ("DATA", True),
        ("text", True),
    ],
)
async def test_no_reply(how: str, where: str, doubt: bool) -> None:
    greeting = how if where == "greeting" else "220 hello"
    async with scripted({where: how}, greeting=greeting) as port:
        assert await in_doubt(port, timeout=1.0 if how == "hang" else 10.0) is doubt


@pytest.mark.parametrize("how", ["close", "hang", "500 what?"])
async def test_a_goodbye_that_fails_changes_nothing(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mail, "QUIT_TIMEOUT", 0.05)
    commands: list[str] = []
    async with scripted({"QUIT": how}, commands) as port:
        await asyncio.wait_for(send(port, timeout=3600.0), DEADLINE)
    assert commands[-1] == "QUIT"


async def test_a_slow_goodbye_is_beyond_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mail, "QUIT_TIMEOUT", 1.5)
    async with scripted({"QUIT": "hang"}) as port:
        await send(port, timeout=1.0)


async def test_a_refused_connection_is_not_in_doubt() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert await in_doubt(port) is False


async def test_an_unknown_host_is_not_in_doubt() -> None:
    client = Mailer(SecretStr("smtp://mail.invalid"), FROM)
    with pytest.raises(Retryable) as caught:
        await client.send(TO, "Hello", "Body", key=KEY)
    assert caught.value.in_doubt is False


# TLS


async def test_smtps_is_tls_from_the_start(mailbox: Mailbox, port: int) -> None:
    assert await in_doubt(port, scheme="smtps", timeout=2.0) is False
    assert mailbox.envelopes == []


async def test_starttls_is_used_when_offered() -> None:
    commands: list[str] = []
    replies = {"EHLO": "250-me\r\n250 STARTTLS", "STARTTLS": "454 not now"}
    async with scripted(replies, commands) as port:
        assert await in_doubt(port) is False
    assert commands[:2] == ["EHLO example.org", "STARTTLS"]
    assert not any(command.startswith("MAIL") for command in commands)


async def test_a_password_leaves_this_machine_under_tls_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mail, "_is_local", lambda host: False)
    commands: list[str] = []
    replies = {"EHLO": "250-me\r\n250 AUTH PLAIN", "AUTH": "235 welcome"}
    async with scripted(replies, commands) as port:
        assert await in_doubt(port, login="user:p%40ss%20word%2Fsecret@") is False
        assert not any(command.startswith("AUTH") for command in commands)
        await send(port)  # without a password there is nothing to protect


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("10.0.0.1", False),
        ("mail.example.org", False),
        ("localhost.example.org", False),
    ],
)
def test_what_counts_as_this_machine(host: str, local: bool) -> None:
    assert mail._is_local(host) is local


# Bounds and life


async def test_connections_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mail, "MAX_CONNECTIONS", 2)
    connections = 0
    full = asyncio.Event()
    seen: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        if connections == 2:
            full.set()
        if await reader.read(5) == b"probe":
            seen.set_result(connections)
        writer.close()

    server = await asyncio.start_server(hold, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client = mailer(port, timeout=60.0)
    deliveries = [asyncio.create_task(client.send(TO, "Hello", "Body", key=KEY)) for _ in range(6)]
    await asyncio.wait_for(full.wait(), DEADLINE)
    # Accepted after every connection that was begun before it.
    _, probe = await asyncio.open_connection("127.0.0.1", port)
    probe.write(b"probe")
    assert await asyncio.wait_for(seen, DEADLINE) == 2 + 1
    for delivery in deliveries:
        delivery.cancel()
    await asyncio.gather(*deliveries, return_exceptions=True)
    probe.close()
    server.close()


async def test_waiting_for_a_connection_takes_nothing_of_the_limit_of_a_delivery(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else a burst would cut deliveries short in the middle of their text."""
    monkeypatch.setattr(mail, "MAX_CONNECTIONS", 1)
    async with scripted({"text": "hang"}) as port:
        client = mailer(port, timeout=1.0)
        errors = await asyncio.gather(
            *(client.send(TO, "Hello", "Body", key=KEY) for _ in range(2)), return_exceptions=True
        )
    # Both got as far as the text, each within a limit of its own.
    assert [getattr(error, "in_doubt", None) for error in errors] == [True, True]


async def test_close_ends_deliveries_under_way_and_refuses_later_ones() -> None:
    commands: list[str] = []
    async with scripted({"text": "hang"}, commands) as port:
        client = mailer(port, timeout=60.0)
        delivery = asyncio.create_task(client.send(TO, "Hello", "Body", key=KEY))
        async with asyncio.timeout(DEADLINE):
            while "DATA" not in commands:  # noqa: ASYNC110  the script has no event for it
                await asyncio.sleep(0.001)
        await client.close()
        with pytest.raises(Retryable) as caught:
            await asyncio.wait_for(delivery, DEADLINE)
        assert caught.value.in_doubt is True
        with pytest.raises(Retryable) as caught:
            await client.send(TO, "Hello", "Body", key=KEY)
        assert caught.value.in_doubt is False
    assert commands.count("DATA") == 1


@pytest.mark.parametrize("url", ["", "http://mail", "smtp://", "mail:25"])
def test_impossible_servers_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match="smtp://"):
        Mailer(SecretStr(url), FROM)


@pytest.mark.parametrize("sender", ["", "nobody", "a@b\r\nBcc: c@d", "caf\u00e9@example.org"])
def test_impossible_senders_are_refused(sender: str) -> None:
    with pytest.raises(ValueError, match="sender"):
        Mailer(SecretStr("smtp://mail"), sender)
