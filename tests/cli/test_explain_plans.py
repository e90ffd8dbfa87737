"""What ``streamapp explain --json`` says of ten thousand messages is what the tables say."""

from __future__ import annotations

import json
from random import Random

import pytest
from click.testing import CliRunner

from streamapp.cli.explain import explain
from tests.intents.model import Expected, Given, expected
from tests.intents.samples import sample

MESSAGES = 10_000


def line(number: int, given: Given) -> str:
    return json.dumps(
        {
            "processing_id": f"p-{number}",
            "lead_id": "lead-1",
            "business_id": "b-1",
            "tenant_id": "t-1",
            "intent": {"intent": given.intent, "confidence": given.confidence},
            "entities": given.entities,
            "original_message": given.text,
        }
    )


def read(given: Given) -> Expected:
    """Expected of a message that was JSON on its way: some values are others then."""
    copy = json.loads(line(0, given))
    return expected(
        Given(given.intent, given.confidence, copy["entities"], copy["original_message"])
    )


@pytest.mark.timeout(300)
def test_ten_thousand_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KAFKA_BOOTSTRAP_SERVERS", "DATABASE_URL"):
        monkeypatch.delenv(f"STREAMAPP_{name}", raising=False)
    random = Random(20261201)
    given = [sample(random) for _ in range(MESSAGES)]
    text = "\n".join(line(number, each) for number, each in enumerate(given))
    ran = CliRunner().invoke(explain, ["-", "--json"], input=text.encode())
    assert ran.exit_code == 0
    lines = ran.stdout.splitlines()
    assert len(lines) == MESSAGES
    for each, said in zip(given, map(json.loads, lines), strict=True):
        wanted = read(each)
        assert said["outcome"] == "plan", (each, said)
        assert said["handler"] == wanted.handler, each
        assert said["actions"] == wanted.actions, each
        assert said["escalate"] == wanted.escalate, each
        shown = {name: said["metadata"][name] for name in wanted.metadata}
        assert shown == json.loads(json.dumps(wanted.metadata)), each
        assert {step.partition(".")[0] for step in said["steps"]} == {*wanted.actions, "reply"}
        assert said["reply"]
