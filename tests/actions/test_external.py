"""Requests' bytes, and what becomes of the answers."""

import json
from typing import Any

import pytest

from streamapp.actions.base import CallContext
from streamapp.actions.clients import Clients, JsonClient, MailSender, SlackSender
from streamapp.actions.defaults import default_actions
from streamapp.actions.executors import CANCELLATION_REASON
from streamapp.actions.registry import ActionRegistry
from streamapp.saga.ids import row_id
from streamapp.saga.model import Message, Step
from streamapp.services.email import Mailer
from streamapp.services.errors import Busy, NothingThere, Rejected, Retryable, ServiceError
from streamapp.services.http import HttpRejected, HttpService
from streamapp.services.slack import Slack
from tests.actions import building
from tests.actions.building import ALL
from tests.actions.fakes import FakeHttp, FakeMailer


def step_of(registry: ActionRegistry, name: str, about: Message | None = None) -> Step:
    made = building.plan(
        registry, ["create_order", "notify_sales"], about=about, capabilities=ALL, run=1
    )
    return next(step for step in made.steps if step.name == name)


def call_context(step: Step) -> CallContext:
    return CallContext(building.context(step, run=1), key="the-key", attempt=1)


def test_the_real_clients_fit(registry: ActionRegistry) -> None:
    http: type[JsonClient] = HttpService
    mailer: type[MailSender] = Mailer
    slack: type[SlackSender] = Slack
    assert (http, mailer, slack) == (HttpService, Mailer, Slack)


class TestOrderService:
    def test_the_bytes_of_the_request(self, registry: ActionRegistry) -> None:
        about = building.message(
            confidence=0.7,
            entities={"product": "Größe X", "quantity": "1,000 kg", "urgency": "asap"},
        )
        step = step_of(registry, "create_order.service", about)
        request = building.external(registry, step).request(
            building.context(step, about=about, run=1)
        )
        assert (
            request
            == (
                '{"processing_id":"p-1","lead_id":"lead-1","business_id":"b-1","tenant_id":"t-1",'
                '"product":"Größe X","quantity":1000,"urgency":"asap","draft":true,'
                '"entities":{"product":"Größe X","quantity":"1,000 kg","urgency":"asap"}}'
            ).encode()
        )

    @pytest.mark.parametrize(
        ("entities", "product", "quantity"),
        [
            ({}, None, None),
            ({"product": ["a"], "quantity": 10**25}, ["a"], 10**25),
            ({"product": " ", "quantity": -3}, None, None),
        ],
    )
    def test_what_is_not_known_is_null(
        self, registry: ActionRegistry, entities: dict[str, Any], product: Any, quantity: Any
    ) -> None:
        about = building.message(entities=entities)
        step = step_of(registry, "create_order.service", about)
        body = json.loads(
            building.external(registry, step).request(building.context(step, about=about))
        )
        assert (body["product"], body["quantity"], body["entities"]) == (
            product,
            quantity,
            entities,
        )

    async def test_the_call(self, registry: ActionRegistry, http: FakeHttp) -> None:
        step = step_of(registry, "create_order.service")
        executor = building.external(registry, step)
        assert await executor.call(b"{}", call_context(step)) == {"order_id": "o-1"}
        assert http.posted == [("/orders", b"{}", "the-key")]

    @pytest.mark.parametrize(
        "error", [Rejected("no"), Busy("wait"), Retryable("down", in_doubt=True)]
    )
    async def test_failures_are_the_sagas_to_judge(
        self, registry: ActionRegistry, http: FakeHttp, error: ServiceError
    ) -> None:
        http.error = error
        step = step_of(registry, "create_order.service")
        executor = building.external(registry, step)
        with pytest.raises(type(error)):
            await executor.call(b"{}", call_context(step))
        with pytest.raises(type(error)):
            await executor.compensate(b'{"creation_key":"k"}', call_context(step))

    @pytest.mark.parametrize("output", [None, {"order_id": "o-1"}])
    async def test_the_cancellation_names_the_creations_key_and_bears_its_own(
        self, registry: ActionRegistry, http: FakeHttp, output: dict[str, Any] | None
    ) -> None:
        step = step_of(registry, "create_order.service")
        executor = building.external(registry, step)
        request = executor.compensation_request(building.context(step), "created/under", output)
        assert json.loads(request) == {
            "creation_key": "created/under",
            "reason": CANCELLATION_REASON,
        }
        assert await executor.compensate(request, call_context(step)) == {"cancelled": True}
        assert http.posted == [("/orders/created%2Funder/cancel", request, "the-key")]

    async def test_nothing_to_cancel(self, registry: ActionRegistry, http: FakeHttp) -> None:
        step = step_of(registry, "create_order.service")
        executor = building.external(registry, step)
        http.error = HttpRejected("order: status 404", 404)
        with pytest.raises(NothingThere):
            await executor.compensate(b'{"creation_key":"k"}', call_context(step))
        http.error = HttpRejected("order: status 403", 403)
        with pytest.raises(HttpRejected):
            await executor.compensate(b'{"creation_key":"k"}', call_context(step))

    async def test_not_found_on_creation_is_a_rejection(
        self, registry: ActionRegistry, http: FakeHttp
    ) -> None:
        http.error = HttpRejected("order: status 404", 404)
        step = step_of(registry, "create_order.service")
        with pytest.raises(Rejected):
            await building.external(registry, step).call(b"{}", call_context(step))

    def test_a_request_is_on_its_way_no_longer_than_its_limit_and_the_margin(self) -> None:
        for timeout, expected in ((30.0, 32.0), (None, 60.0)):
            timeouts = {} if timeout is None else {"order": timeout}
            clients = Clients({"order": FakeHttp()}, timeouts, mailer=FakeMailer())
            registry = default_actions(clients)
            executor = building.external(registry, step_of(registry, "create_order.service"))
            assert executor.max_call_time == expected


class TestEmail:
    async def test_the_mail(self, registry: ActionRegistry, mailer: FakeMailer) -> None:
        step = step_of(registry, "notify_sales.email")
        executor = building.external(registry, step)
        request = executor.request(building.context(step, run=1))
        message_id = row_id("message", "p-1", 1, "notify_sales", "email")
        assert await executor.call(request, call_context(step)) == {"message_id": message_id}
        ((to, subject, body, key, sent_id),) = mailer.sent
        assert (to, subject) == ("sales@example.com", "New ORDER_REQUEST from lead")
        assert (key, sent_id) == ("the-key", message_id)
        assert body.startswith("Sales: a lead asks for you.")
        for part in ("please send it", "lead-1", "b-1", "p-1"):
            assert part in body

    def test_the_bytes_are_the_same_in_every_attempt(self, registry: ActionRegistry) -> None:
        step = step_of(registry, "notify_sales.email")
        executor = building.external(registry, step)
        assert executor.request(building.context(step)) == executor.request(building.context(step))
        assert not executor.compensable


def test_services_that_are_not_configured_have_no_executor() -> None:
    registry = default_actions(Clients())
    assert registry.executor("order_service", 1) is None
    assert registry.executor("email", 1) is None
    assert registry.executor("task", 1) is not None
