"""Which words are chosen at the plan, and what they become when the saga is done."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from streamapp.actions.base import Capabilities, StepContext
from streamapp.actions.clients import Clients
from streamapp.actions.contents import ContentExecutor
from streamapp.actions.defaults import default_actions
from streamapp.actions.executors import ReplyExecutor
from streamapp.actions.openings import HANDLER, SUGGESTED, opening, usable
from streamapp.actions.planner import make_plan
from streamapp.actions.topics import APOLOGIES, promise_of
from streamapp.intents.base import Decision, Thresholds
from streamapp.intents.registry import default_registry
from streamapp.saga.model import Message, Plan, Step
from streamapp.saga.operations import CancelTask, InsertTask, SendMessage
from tests.actions import building

FAILED: list[str] = []
REGISTRY = default_actions(Clients(), FAILED.append)
TEXTS = {
    "faq": {"en": "Questions? See our page.", "de": "Fragen? Siehe unsere Seite."},
    "price_list": {"en": "{{ results.fetch_product_pricing.price|decimals }} EUR"},
}


def planned(
    actions: tuple[str, ...] = ("send_faq",),
    *,
    message: Message | None = None,
    run: int = 0,
    suggested_response: str | None = None,
    decision: Decision | None = None,
    **capabilities: Any,
) -> Plan:
    return make_plan(
        message or building.message(),
        "ORDER_REQUEST",
        decision or Decision(actions, escalate=False, reply="Hello.", promise="It will come."),
        run=run,
        registry=REGISTRY,
        capabilities=Capabilities(**capabilities),
        thresholds=Thresholds(),
        suggested_response=suggested_response,
    )


def context(plan: Plan, step: Step, results: dict[str, dict[str, Any]]) -> StepContext:
    names = {other.name: other.ordinal for other in plan.steps}
    outputs = {names[name]: output for name, output in results.items() if name in names}
    return StepContext(building.message(), 0, step, outputs, results)


def said(plan: Plan, results: dict[str, dict[str, Any]] | None = None) -> str:
    """What the customer is told at the end of a saga whose look-ups answered so."""
    known = dict(results or {})
    for step in plan.steps:
        executor = REGISTRY.executor(step.executor, step.version)
        if isinstance(executor, ContentExecutor):
            known[step.name] = executor.output(context(plan, step, known))
    last = plan.steps[-1]
    executor = REGISTRY.executor(last.executor, last.version)
    assert isinstance(executor, ReplyExecutor)
    (message,) = executor.operations(context(plan, last, known))
    assert isinstance(message, SendMessage)
    output = executor.output(context(plan, last, known))
    assert output is None or output["text"] == message.text
    return message.text


class TestLanguages:
    @pytest.mark.parametrize(
        ("language", "business", "text"),
        [
            (None, "en", "Questions? See our page."),
            (None, "de", "Fragen? Siehe unsere Seite."),
            ("DE", "en", "Fragen? Siehe unsere Seite."),
            ("de_AT", "en", "Fragen? Siehe unsere Seite."),
            ("fr", "de", "Fragen? Siehe unsere Seite."),
            (7, "en", "Questions? See our page."),
        ],
    )
    def test_the_customers_comes_before_the_business_s(
        self, language: Any, business: str, text: str
    ) -> None:
        about = building.message(entities={"language": language})
        plan = planned(message=about, templates=TEXTS, language=business)
        assert said(plan) == f"Hello.\n\n{text}"

    def test_a_text_in_no_language_that_fits_is_none(self) -> None:
        plan = planned(templates=TEXTS, language="fr")
        assert plan.steps[0].executor == "task"
        assert said(plan) == "Hello. It will come."


class TestContents:
    def test_a_text_of_the_business_goes_before_that_of_the_program(self) -> None:
        plan = planned(templates=TEXTS, texts={"faq": "The program's."})
        assert said(plan) == "Hello.\n\nQuestions? See our page."
        assert plan.steps[0].version == 1, "there is nothing to fill in"
        assert said(planned(texts={"faq": "The program's."})) == "Hello.\n\nThe program's."

    def test_what_a_look_up_answered_is_filled_in_at_the_end(self) -> None:
        plan = planned(("send_price_list",), templates=TEXTS)
        results = {"fetch_product_pricing": {"price": 12.5}}
        assert said(plan, results) == "Hello.\n\n12.50 EUR"
        assert plan.steps[0].version == 2, "a program that cannot fill it in must not run it"

    def test_an_edited_text_changes_nothing_of_a_plan(self) -> None:
        texts = {"faq": {"en": "{{ business.name }} before"}}
        about = {"name": "Shop"}
        plan = planned(templates=texts, about=about)
        texts["faq"]["en"] = "after"
        about["name"] = "Schmidt"
        assert said(plan).endswith("Shop before")

    def test_a_failing_template_gives_way_to_the_plain_text(self) -> None:
        FAILED.clear()
        plan = planned(
            ("send_price_list",), templates=TEXTS, texts={"price_list": "Ask us for prices."}
        )
        assert said(plan) == "Hello.\n\nAsk us for prices."
        assert FAILED == ["price_list"]
        step = plan.steps[0]
        executor = REGISTRY.executor(step.executor, step.version)
        assert isinstance(executor, ContentExecutor)
        assert executor.operations(context(plan, step, {})) == ()

    def test_without_a_plain_text_somebody_has_the_task_to_send_it(self) -> None:
        plan = planned(("send_price_list",), templates=TEXTS)
        assert said(plan) == f"Hello.\n\n{promise_of('price_list')}"
        step = plan.steps[0]
        executor = REGISTRY.executor(step.executor, step.version)
        assert isinstance(executor, ContentExecutor)
        (task,) = executor.operations(context(plan, step, {}))
        assert isinstance(task, InsertTask)
        assert (task.task_type, task.assigned_to_id) == ("send_price_list", "support_team")
        output = executor.output(context(plan, step, {}))
        (cancel,) = executor.compensation(context(plan, step, {}), output)
        assert isinstance(cancel, CancelTask)
        assert cancel.task_id == task.task_id

    def test_without_a_failure_nobody_has(self) -> None:
        plan = planned(("send_price_list",), templates=TEXTS)
        step = plan.steps[0]
        executor = REGISTRY.executor(step.executor, step.version)
        assert isinstance(executor, ContentExecutor)
        answered = context(plan, step, {"fetch_product_pricing": {"price": 1}})
        assert executor.operations(answered) == ()
        assert executor.compensation(answered, executor.output(answered)) == ()


class TestOpenings:
    def test_the_business_s_own_words(self) -> None:
        own = {"reply_order_request": {"en": "Thanks, {{ entities.product }} it is. {{ default }}"}}
        plan = planned(("notify_sales",), templates=own)
        assert said(plan) == "Thanks, Widget X it is. Hello."

    def test_a_promise_that_holds_is_kept(self) -> None:
        own = {"reply_order_request": {"en": "Thanks, {{ entities.product }}."}}
        assert said(planned(templates=own)) == "Thanks, Widget X. It will come."
        plain = {"reply_order_request": {"en": "Thanks."}}
        assert said(planned(templates=plain)) == "Thanks. It will come."

    def test_words_that_fail_give_way_to_the_handler_s(self) -> None:
        FAILED.clear()
        own = {"reply_order_request": {"en": "Left: {{ results.check_inventory.left }}"}}
        plan = planned(templates=own)
        assert said(plan) == "Hello. It will come."
        assert FAILED == ["reply_order_request"]
        assert said(plan, {"check_inventory": {"left": 4}}) == "Left: 4 It will come."

    def test_a_handler_without_words_says_the_business_s(self) -> None:
        own = {"reply_order_request": {"en": "Thanks, {{ entities.product }}."}}
        decision = Decision(("notify_sales",), escalate=False)
        assert said(planned(decision=decision, templates=own)) == "Thanks, Widget X."

    @pytest.mark.parametrize(
        ("changes", "source"),
        [
            ({}, SUGGESTED),
            ({"allowed": False}, HANDLER),
            ({"confidence": 0.8}, HANDLER),
            ({"generic": False}, HANDLER),
            ({"generic": False, "reply": None}, SUGGESTED),
            ({"response": None}, HANDLER),
            ({"response": " \n "}, HANDLER),
            ({"response": "x" * 4097}, HANDLER),
            ({"response": "x" * 4096}, SUGGESTED),
            ({"texts": {"reply_general_inquiry": {"en": "Own."}}}, "the text of the business"),
        ],
    )
    def test_when_the_ai_s_words_are_used(self, changes: dict[str, Any], source: str) -> None:
        decision = Decision(
            (), escalate=False, reply=changes.get("reply", "Hi."),
            generic=changes.get("generic", True),
        )  # fmt: skip
        capabilities = Capabilities(
            suggested_response=changes.get("allowed", True), templates=changes.get("texts", {})
        )
        about = building.message(confidence=changes.get("confidence", 0.81))
        response = changes.get("response", "We are open until five.")
        found = opening(about, "GENERAL_INQUIRY", decision, capabilities, Thresholds(), response)
        assert found.source == source
        if source == SUGGESTED:
            assert found.text == response.strip()

    def test_handlers_that_act_speak_for_themselves(self) -> None:
        """What they say they do, the AI cannot know."""
        generic = set()
        for handler in default_registry().handlers:
            about = replace(building.message(handler.intent), entities={})
            if handler.decide(about, Thresholds()).generic:
                generic.add(handler.intent)
        assert generic == {"GENERAL_INQUIRY", "UNKNOWN"}

    def test_nothing_in_the_ai_s_words_steers_anything(self) -> None:
        assert usable("a\x1b[2J\x00b\u202e\nc") == "a[2Jb\nc"
        assert usable("\x00") is None


class TestSwitches:
    def test_what_is_switched_off_is_not_planned(self) -> None:
        actions = ("create_order", "priority_high", "notify_sales")
        plan = planned(actions, switched_off=frozenset({"priority_high", "notify_sales"}))
        assert plan.actions == ("create_order",)
        assert [step.name for step in plan.steps] == ["create_order.task", "reply"]
        assert plan.steps[0].params["priority"] == "normal", "nor does it raise anything"

    def test_tasks_go_to_teams_by_the_business_s_names(self) -> None:
        plan = planned(("notify_sales",), team_names={"sales_team": "Vertrieb Nord"})
        assert plan.steps[0].params["assigned_to_id"] == "Vertrieb Nord"


class TestApology:
    @pytest.mark.parametrize(
        ("language", "business", "text"),
        [(None, "en", "en"), (None, "de", "de"), ("fr-CA", "de", "fr"), ("xx", "yy", "en")],
    )
    def test_one_ships_in_some_languages(
        self, language: str | None, business: str, text: str
    ) -> None:
        about = building.message(entities={"language": language})
        assert planned(message=about, language=business).apology == {"text": APOLOGIES[text]}

    def test_the_business_s_own(self) -> None:
        own = {"apology": {"en": "Sorry."}}
        assert planned(templates=own).apology == {"text": "Sorry."}
        own = {"apology": {"en": "Sorry, {{ business.name }}."}}
        assert planned(templates=own, about={"name": "K"}).apology == {
            "text": APOLOGIES["en"],
            "template": "Sorry, {{ business.name }}.",
            "about": {"name": "K"},
        }

    def test_who_is_not_answered_or_knows_already_gets_none(self) -> None:
        silent = Decision(("notify_sales",), escalate=False)
        assert planned(decision=silent).apology is None
        assert planned(run=1).apology is None
        assert planned(apologises=False).apology is None
