"""``streamapp business`` against a database."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.cli.support import Ran, ran, refused

NOWHERE = "postgresql://user:hunter2@127.0.0.1:1/none"
TOML = b"""
name = "Der Laden"
slack_webhook_url = "https://hooks.example/very-secret"
[texts]
faq = "Ask us."
[services.order]
url = "https://orders.example"
token = "hunter2"
"""

Run = Callable[..., Coroutine[Any, Any, Ran]]


@pytest.fixture
def run(database: str) -> Run:
    """Runs a command beside the test's event loop: commands have one of their own."""

    async def run(*arguments: str, dsn: str = database, stdin: bytes = b"") -> Ran:
        return await asyncio.to_thread(
            ran, "business", *arguments, env={"DATABASE_URL": dsn}, stdin=stdin
        )

    return run


async def stored(database: str) -> list[Any]:
    connection = await asyncpg.connect(database)
    try:
        rows = await connection.fetch("select * from business_settings")
        return [json.loads(row["settings"]) for row in rows]
    finally:
        await connection.close()


async def test_set_get_edit_set(run: Run, database: str, tmp_path: Path) -> None:
    file = tmp_path / "shop-1.toml"
    file.write_bytes(TOML)
    first = await run("set", "b-1", str(file), "--by", "ann")
    assert (first.code, first.err) == (0, "")
    assert "within 2 s" in first.out
    shown = await run("get", "b-1", "--json")
    assert shown.code == 0
    assert "hunter2" not in shown.out + first.out
    assert "very-secret" not in shown.out
    document = shown.json
    assert document["services"]["order"] == {
        "url": "https://orders.example",
        "token": "**********",
    }
    document["texts"]["faq"]["en"] = "Ask us tomorrow."
    second = await run("set", "b-1", "-", "--json", stdin=json.dumps(document).encode())
    assert second.json["revision"] > 1
    (settings,) = await stored(database)
    assert settings["texts"]["faq"]["en"] == "Ask us tomorrow."
    assert settings["services"]["order"]["token"] == "hunter2"
    assert settings["slack_webhook_url"] == "https://hooks.example/very-secret"
    revealed = await run("get", "b-1", "--reveal")
    assert "hunter2" in revealed.out
    assert "hunter2" not in (await run("get", "b-1")).out


async def test_what_is_wrong_is_refused_by_its_field(run: Run, database: str) -> None:
    wrong = b'{"texts": {"faq": "{{ x() }}"}, "actions": {"send_faq": 1}, "timezone": "X"}'
    found = await run("set", "b-1", "-", stdin=wrong)
    refused(found, 1, "texts.faq.en: ", "actions.send_faq: ", "timezone: ")
    assert found.out == ""
    found = await run("set", "b-1", "-", "--json", stdin=wrong)
    assert found.code == 1
    assert found.json["valid"] is False
    fields = {error["field"] for error in found.json["errors"]}
    assert fields == {"texts.faq.en", "actions.send_faq", "timezone"}
    assert await stored(database) == []


@pytest.mark.parametrize(
    ("document", "text"),
    [
        (b"{", "(file): cannot be understood"),
        (b"= 5", "(file): cannot be understood"),
        (b"\xff", "(file): cannot be understood"),
        (b'{"a": ' * 100_000, "(file): cannot be understood"),
        (b"x" * 300_000, "has more than 262144 bytes"),
        (b"[]", "(file): cannot be understood"),
        (b'{"texts": {"reply_nobody": "x"}}', "'reply_nobody' is no topic"),
        (b'{"actions": {"nonsense": false}}', "'nonsense' is no action"),
    ],
)
async def test_check_says_what_could_not_be_set(document: bytes, text: str, run: Run) -> None:
    # Nobody is asked: the database is away.
    refused(await run("check", "-", dsn=NOWHERE, stdin=document), 1, text)


async def test_check_needs_no_database_and_takes_masked_secrets(run: Run) -> None:
    good = TOML.replace(b"hunter2", b"**********")
    found = await run("check", "-", dsn=NOWHERE, stdin=good)
    assert (found.code, found.out) == (0, "it can be set\n")
    found = await run("check", "-", "--json", dsn=NOWHERE, stdin=good)
    assert found.json == {"valid": True, "errors": []}


async def test_a_masked_secret_that_nobody_knows_is_refused(run: Run) -> None:
    masked = TOML.replace(b"hunter2", b"**********")
    refused(await run("set", "b-1", "-", stdin=masked), 1, "services.order.token: is masked")


async def test_list(run: Run) -> None:
    assert (await run("list", "--json")).json == []
    await run("set", "b-1", "-", stdin=TOML)
    await run("set", "b-2", "-", "--by", "bob", stdin=b"{}")
    rows = (await run("list", "--json")).json
    assert [(row["business_id"], row["fields"]) for row in rows] == [
        ("b-2", []),
        ("b-1", ["name", "services", "slack_webhook_url", "texts"]),
    ]
    text = (await run("list")).out
    assert "bob" in text
    assert "hunter2" not in text


async def test_what_is_not_there_or_cannot_be_asked(run: Run, tmp_path: Path) -> None:
    refused(await run("get", "b-9"), 1, "'b-9' has no settings")
    refused(await run("set", "b-9", str(tmp_path / "no.toml")), 1, "cannot be read")
    away = await run("get", "b-9", dsn=NOWHERE)
    refused(away, 1, "cannot be reached")
    assert "hunter2" not in away.err
    for arguments in (("set", "b-1"), ("get",), ("get", " \n"), ("set", "b", "-", "--by", "\n")):
        assert (await run(*arguments)).code == 2, arguments
