"""``streamapp explain``: every line is explained, nothing is called, nothing breaks it."""

import json
import subprocess
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamapp.actions.topics import APOLOGIES
from streamapp.cli.explain import explain
from streamapp.cli.explaining import Explainer
from streamapp.settings import load

BIG = 262_144


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only defaults; broker and database at addresses where nobody answers."""
    for name in ("ORDER_SERVICE_URL", "SMTP_URL", "SALES_EMAIL", "SUGGESTED_ACTIONS"):
        monkeypatch.delenv(f"STREAMAPP_{name}", raising=False)
    monkeypatch.setenv("STREAMAPP_KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    monkeypatch.setenv("STREAMAPP_DATABASE_URL", "postgresql://127.0.0.1:1/none")


def result(**changes: Any) -> dict[str, Any]:
    return {
        "processing_id": "p-1",
        "lead_id": "lead-1",
        "business_id": "b-1",
        "tenant_id": "t-1",
        "intent": {"intent": "ORDER_REQUEST", "confidence": 0.95},
        "entities": {"product": "Widget X", "quantity": 100},
        "original_message": "100 of Widget X please",
        "processing_time_ms": 12,
    } | changes


def run(*lines: bytes | dict[str, Any], options: tuple[str, ...] = ("-", "--json")) -> Result:
    data = b"".join(
        (json.dumps(line).encode() if isinstance(line, dict) else line) + b"\n" for line in lines
    )
    return CliRunner().invoke(explain, list(options), input=data)


def explained(*lines: bytes | dict[str, Any]) -> list[dict[str, Any]]:
    ran = run(*lines)
    assert ran.exit_code == 0, ran.output
    return [json.loads(line) for line in ran.stdout.splitlines()]


class TestJson:
    def test_a_plan(self) -> None:
        (found,) = explained(result())
        why = found.pop("why")
        assert "ORDER_REQUEST" in why[0]
        reply = found.pop("reply")
        assert "100 units of Widget X" in reply
        assert found.pop("reasons") == {
            "create_order": "always, for ORDER_REQUEST",
            "notify_sales": "always, for ORDER_REQUEST",
            "check_inventory": why[1],
        }
        assert found.pop("calls") == {
            "check_inventory": "task check_inventory for fulfillment_team, normal, due in 4 h",
            "create_order.task": "task order_processing for order_processing_team, normal, "
            "due in 48 h",
            "notify_sales.task": "task sales_notification for sales_team, high, due in 24 h",
            "reply": "message to the customer, whose number is not known",
        }
        assert found.pop("apology") == APOLOGIES["en"]
        assert found == {
            "line": 1,
            "outcome": "plan",
            "reason": None,
            "error": None,
            "processing_id": "p-1",
            "lead_id": "lead-1",
            "business_id": "b-1",
            "tenant_id": "t-1",
            "intent": "ORDER_REQUEST",
            "confidence": 0.95,
            "handler": "ORDER_REQUEST",
            "actions": ["create_order", "notify_sales", "check_inventory"],
            "suggested": [],
            "steps": ["check_inventory", "create_order.task", "notify_sales.task", "reply"],
            "escalate": False,
            "metadata": {
                "order_details": {"product": "Widget X", "quantity": 100, "urgency": None},
                "requires_confirmation": False,
            },
            "thresholds": {"minimum": 0.5, "high": 0.8},
            "switched_off": [],
            "reply_from": "the handler's own words",
            "duplicate": None,
            "saga": None,
        }

    @pytest.mark.parametrize(
        ("intent", "confidence", "handler", "escalate"),
        [
            ("COMPLAINT", 0.9, "COMPLAINT", True),
            ("PRICING_INQUIRY", 0.9, "PRICING_INQUIRY", False),
            ("NOBODY_KNOWS", 0.9, "UNKNOWN", True),
            ("ORDER_REQUEST", 0.4, "UNKNOWN", True),
        ],
    )
    def test_each_handler(
        self, intent: str, confidence: float, handler: str, escalate: bool
    ) -> None:
        (found,) = explained(result(intent={"intent": intent, "confidence": confidence}))
        assert (found["outcome"], found["handler"]) == ("plan", handler)
        assert found["escalate"] is escalate

    def test_services_show_as_steps(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("STREAMAPP_ORDER_SERVICE_URL", "http://127.0.0.1:1")
        monkeypatch.setenv("STREAMAPP_SMTP_URL", "smtp://127.0.0.1:1")
        monkeypatch.setenv("STREAMAPP_SALES_EMAIL", "sales@example.com")
        (found,) = explained(result())
        assert found["steps"] == [
            "check_inventory",
            "create_order.task",
            "create_order.service",
            "notify_sales.task",
            "notify_sales.email",
            "reply",
        ]
        assert found["calls"]["create_order.service"] == "POST order /orders"
        assert found["calls"]["notify_sales.email"] == "e-mail to sales@example.com"

    def test_the_words_that_decided_are_shown(self) -> None:
        (found,) = explained(
            result(
                intent={"intent": "GENERAL_INQUIRY", "confidence": 0.9},
                entities={},
                original_message="Which stores are opened today?",
            )
        )
        assert "(opened)" in found["reasons"]["send_business_hours"]
        assert "(today)" in found["reasons"]["priority_high"]
        assert found["reasons"]["log_inquiry"] == "always, for GENERAL_INQUIRY"

    def test_an_envelope(self) -> None:
        (found,) = explained(
            {"event_id": "e", "event_type": "ai.process.result", "payload": result()}
        )
        assert (found["outcome"], found["lead_id"]) == ("plan", "lead-1")

    def test_a_missing_tenant_is_said_to_be_looked_up(self) -> None:
        (found,) = explained(result(tenant_id=None))
        assert (found["outcome"], found["tenant_id"]) == ("plan", None)
        assert any("tenant_id is missing" in reason for reason in found["why"])

    def test_an_error_of_the_ai(self) -> None:
        payload = {"lead_id": "lead-1", "error_type": "Timeout", "error_message": "late"}
        (found,) = explained({"event_type": "ai.error", "payload": payload})
        assert (found["outcome"], found["handler"], found["reply"]) == ("plan", "AI_ERROR", None)
        assert found["actions"] == found["steps"] == ["log_ai_error"]

    def test_suggestions(self, monkeypatch: pytest.MonkeyPatch) -> None:
        line = result(suggested_actions=["assign_to_sales", "no_such_thing"])
        (found,) = explained(line)
        assert "assign_to_sales" not in found["actions"]
        assert any("SUGGESTED_ACTIONS is off" in reason for reason in found["why"])
        monkeypatch.setenv("STREAMAPP_SUGGESTED_ACTIONS", "true")
        (found,) = explained(line)
        assert found["actions"][-1] == "assign_to_sales"
        assert found["suggested"] == ["assign_to_sales"]
        assert any("not known: 1" in reason for reason in found["why"])

    @pytest.mark.parametrize(
        ("line", "error"),
        [
            (b"", "not JSON"),
            (b"{", "not JSON"),
            (b"\xff", "not UTF-8"),
            (b"[]", "no JSON object"),
            (b"{}", "processing_id is missing"),
            (b"[" * 100_000, "nested deeper"),
            (b'{"processing_id": "p", "lead_id": "\\ud800", "business_id": "b"}', "surrogate"),
            (b'{"processing_id": "p", "lead_id": 5, "business_id": "b"}', "lead_id is no text"),
            (b'{"processing_id": "p", "business_id": "b"}', "lead_id is missing"),
            (json.dumps(result(entities=[])).encode(), "entities is no object"),
        ],
    )
    def test_dead_letters(self, line: bytes, error: str) -> None:
        (found,) = explained(line)
        assert (found["outcome"], found["reason"]) == ("dead_letter", "invalid_payload")
        assert error in found["error"]
        assert (found["handler"], found["actions"], found["steps"]) == (None, [], [])
        assert (found["escalate"], found["metadata"], found["reply"]) == (False, {}, None)

    def test_a_failing_handler_is_a_dead_letter(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*_: object, **__: object) -> None:
            raise ZeroDivisionError("oops")

        monkeypatch.setattr("streamapp.pipeline.planning.make_plan", fail)
        first, second = explained(result(), b"{}")
        assert (first["reason"], first["error"]) == ("handler_error", "ZeroDivisionError: oops")
        assert (first["handler"], first["processing_id"]) == (None, "p-1")
        assert second["reason"] == "invalid_payload"


class TestLines:
    def test_one_answer_for_each_line(self) -> None:
        found = explained(result(), b"", b"{}", result(processing_id="p-2"))
        assert [(each["line"], each["outcome"]) for each in found] == [
            (1, "plan"),
            (2, "dead_letter"),
            (3, "dead_letter"),
            (4, "plan"),
        ]

    @pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
    def test_the_last_line_may_end_anyhow(self, end: bytes) -> None:
        data = json.dumps(result()).encode() + end
        ran = CliRunner().invoke(explain, ["-", "--json"], input=data)
        assert json.loads(ran.stdout)["outcome"] == "plan"

    def test_no_input_no_output(self) -> None:
        ran = CliRunner().invoke(explain, ["-"], input=b"")
        assert (ran.exit_code, ran.output) == (0, "")

    @pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
    @pytest.mark.parametrize(("size", "outcome"), [(BIG, "plan"), (BIG + 1, "dead_letter")])
    def test_a_line_as_long_as_a_payload_may_be(self, size: int, outcome: str, end: bytes) -> None:
        line = json.dumps(result()).encode()
        line += b" " * (size - len(line))
        (found,) = (
            json.loads(each)
            for each in CliRunner()
            .invoke(explain, ["-", "--json"], input=line + end)
            .stdout.splitlines()
        )
        assert found["outcome"] == outcome

    def test_the_line_after_a_long_one_is_read_from_its_beginning(self) -> None:
        first, second = explained(b"x" * (BIG * 3 + 17), result())
        assert first["error"] == f"the value has more than {BIG} bytes"
        assert (second["line"], second["outcome"]) == (2, "plan")

    def test_no_more_of_a_line_is_held_than_a_payload_may_have(self) -> None:
        class Counting(BytesIO):
            largest = 0

            def readline(self, size: int | None = -1, /) -> bytes:
                line = super().readline(-1 if size is None else size)
                self.largest = max(self.largest, len(line))
                return line

        from streamapp.cli.explain import _lines

        stream = Counting(b"x" * 5_000_000 + b"\nend")
        assert list(_lines(stream, 1000)) == [None, b"end"]
        assert stream.largest <= 65_536

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.binary(max_size=200).filter(lambda value: b"\n" not in value))
    def test_no_bytes_break_it(self, value: bytes) -> None:
        assert Explainer(load({})).explain(1, value).outcome in ("plan", "dead_letter")

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
    @given(
        st.dictionaries(
            st.sampled_from([*sorted(result()), "reply_to", "source", "suggested_actions"]),
            st.recursive(
                st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
                lambda inner: (
                    st.lists(inner) | st.dictionaries(st.sampled_from(["intent", "a"]), inner)
                ),
                max_leaves=5,
            ),
        ),
        st.booleans(),
    )
    def test_no_values_break_it(self, changes: dict[str, Any], as_json: bool) -> None:
        options = ("-", "--json") if as_json else ("-",)
        ran = run(result(**changes), options=options)
        assert (ran.exit_code, ran.exception) == (0, None)
        if as_json:
            assert json.loads(ran.stdout)["outcome"] in ("plan", "dead_letter")


class TestText:
    def test_what_is_shown(self) -> None:
        ran = run(result(), b"{}", options=("-",))
        assert ran.exit_code == 0
        for part in (
            "line 1: p-1",
            "lead lead-1, business b-1, tenant t-1",
            "handler    ORDER_REQUEST",
            "actions    create_order, notify_sales, check_inventory",
            "steps      check_inventory, create_order.task, notify_sales.task, reply",
            "escalate   no",
            "100 units of Widget X",
            "intent     ORDER_REQUEST (0.95; minimum 0.5, high 0.8)",
            "why        create_order: always, for ORDER_REQUEST",
            "does       create_order.task: task order_processing for order_processing_team",
            "words      the reply begins with the handler's own words",
            "if undone  We are sorry",
            "because    ORDER_REQUEST (priority 10) accepts it",
            "line 2\n",
            "dead_letter: invalid_payload (processing_id is missing)",
        ):
            assert part in ran.stdout

    def test_persons_are_masked_and_ids_are_not(self) -> None:
        entities = {
            "product": "case for +49 151 2345678",
            "quantity": 2,
            "urgency": "ann@example.com",
        }
        line = result(
            lead_id="491512345678",
            entities=entities,
            original_message="secret words of mine",
        )
        shown = run(line, options=("-",)).stdout
        assert "lead 491512345678" in shown
        assert "***78" in shown
        assert "***@***" in shown
        for hidden in ("151 2345678", "ann@example.com", "secret words"):
            assert hidden not in shown

    def test_the_order_id_of_a_complaint_is_shown(self) -> None:
        line = result(
            intent={"intent": "COMPLAINT", "confidence": 0.9}, entities={"order_id": "1234567890"}
        )
        assert "order_id   1234567890" in run(line, options=("-",)).stdout

    def test_nothing_steers_the_terminal(self) -> None:
        line = result(
            entities={"product": "\x1b[2J\u202eX", "quantity": 1},
            intent={"intent": "ORDER_REQUEST", "confidence": 0.9},
        )
        shown = run(line, options=("-",)).stdout
        assert "\x1b" not in shown
        assert "\u202e" not in shown
        assert "\\x1b[2J" in shown

    def test_an_output_that_cannot_show_everything(self) -> None:
        line = json.dumps(result(entities={"product": "Größe ✓", "quantity": 1})).encode()
        ran = subprocess.run(
            [sys.executable, "-c", "from streamapp.cli.explain import explain; explain()", "-"],
            input=line,
            capture_output=True,
            env={"PYTHONIOENCODING": "ascii", "PYTHONPATH": str(Path(__file__).parents[2])},
            check=False,
            timeout=60,
        )
        assert (ran.returncode, ran.stderr) == (0, b"")
        assert b"Gr\\xf6\\xdfe \\u2713" in ran.stdout


def test_colours_are_for_terminals() -> None:
    line = json.dumps(result()).encode()
    coloured = CliRunner().invoke(explain, ["-"], input=line, color=True).stdout
    assert "\x1b[32mplan" in coloured
    assert "\x1b" not in CliRunner().invoke(explain, ["-"], input=line).stdout


class TestExit:
    def test_a_file(self, tmp_path: Path) -> None:
        file = tmp_path / "messages.jsonl"
        file.write_bytes(json.dumps(result()).encode())
        ran = CliRunner().invoke(explain, [str(file), "--json"])
        assert (ran.exit_code, json.loads(ran.stdout)["outcome"]) == (0, "plan")

    @pytest.mark.parametrize("name", ["missing.jsonl", "."])
    def test_a_file_that_cannot_be_read(self, tmp_path: Path, name: str) -> None:
        ran = CliRunner().invoke(explain, [str(tmp_path / name)])
        assert (ran.exit_code, ran.stdout) == (1, "")
        assert "cannot be read" in ran.stderr

    def test_a_read_that_fails_midway(self) -> None:
        class Broken(BytesIO):
            def readline(self, size: int | None = -1, /) -> bytes:
                raise OSError(5, "Input/output error")

        from streamapp.cli.explain import _lines, _Unreadable

        with pytest.raises(_Unreadable, match="Input/output error"):
            list(_lines(Broken(), 10))

    @pytest.mark.parametrize("options", [[], ["a", "b"], ["-", "--nonsense"]])
    def test_wrong_use(self, options: list[str]) -> None:
        assert CliRunner().invoke(explain, options).exit_code == 2

    def test_a_wrong_setting(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("STREAMAPP_CONFIDENCE_HIGH", "2")
        ran = CliRunner().invoke(explain, ["-"])
        assert ran.exit_code == 2
        assert "STREAMAPP_CONFIDENCE_HIGH" in ran.stderr
