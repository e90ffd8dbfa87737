"""The actions: by themselves, on the real journal, and with a kill at each point."""

import json
from collections.abc import Mapping
from functools import partial
from typing import Any

import pytest
from shop_loyalty.actions import NoteReward, RedeemPoints
from shop_loyalty.intents import RewardRequestHandler

from streamapp.actions.base import CallContext, StepContext
from streamapp.actions.extension import ExternalAction
from streamapp.saga.operations import InsertActivity
from streamapp.services.errors import NothingThere
from streamapp.services.http import HttpRejected, HttpService
from streamapp.testing import FarSide, Kit, message

WISH = message("REWARD_REQUEST", entities={"card_number": "C-7", "points": 1200, "product": "Mug"})
REDEEM = "POST /redemptions"
CANCEL = "POST /redemptions/{key}/cancel"


THEN_REFUSED = ("redeem_points", "order_mug")


class OrderMug(ExternalAction):
    """What comes after the points were taken, and is refused."""

    name = "order_mug"
    service = "mugs"
    key_honoured = True
    compensable = True

    def __init__(self, url: str) -> None:
        self._http = HttpService(self.service, url)

    def request(self, context: StepContext) -> bytes:
        return b"{}"

    async def call(self, request: bytes, context: CallContext) -> dict[str, Any]:
        return await self._http.post("/orders", request, key=context.key)

    def compensation_request(
        self, context: StepContext, forward_key: str, output: Mapping[str, Any] | None
    ) -> bytes:
        return forward_key.encode()

    async def compensate(self, request: bytes, context: CallContext) -> dict[str, Any]:
        try:
            return await self._http.post(
                f"/orders/{request.decode()}/cancel", b"{}", key=context.key
            )
        except HttpRejected as error:
            raise NothingThere(str(error)) from error

    async def close(self) -> None:
        await self._http.close()


def refused(far: FarSide) -> Kit:
    """What takes points and then fails for good."""
    far.always["POST /orders"] = (422, {"error": "no mugs left"})
    return Kit(actions=[partial(RedeemPoints, far.url), partial(OrderMug, far.url)])


def kit(url: str | None = None) -> Kit:
    redeem = partial(RedeemPoints, url) if url else RedeemPoints
    return Kit(handlers=[RewardRequestHandler], actions=[NoteReward, redeem])


def test_what_is_done_and_what_undoes_it() -> None:
    forward = kit("http://loyalty").forward(WISH)
    (note,) = forward["note_reward"]
    assert isinstance(note, InsertActivity)
    assert note.activity_type == "reward_requested"
    request = forward["redeem_points"]
    assert isinstance(request, bytes)
    assert json.loads(request) == {"card_number": "C-7", "points": 1200}
    backward = kit("http://loyalty").backward(WISH)
    assert "note_reward" not in backward
    assert b"redemption" in backward["redeem_points"]


def test_without_the_service_a_person_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOYALTY_SERVICE_URL", raising=False)
    steps = {step.action: step for step in kit().plan(WISH).steps}
    assert steps["redeem_points"].executor == "task"
    assert steps["redeem_points"].params["assigned_to_id"] == "sales_team"


async def test_points_are_taken(streamapp_database: str, streamapp_far_side: FarSide) -> None:
    outcome = await kit(streamapp_far_side.url).run(streamapp_database, WISH)
    assert outcome.status == "COMPLETED"
    assert streamapp_far_side.names() == [REDEEM]
    assert {row["activity_type"] for row in outcome.activities} >= {"reward_requested"}
    assert outcome.replies == ["Your reward Mug is on its way."]


async def test_they_are_taken_once_though_the_answer_is_lost(
    streamapp_database: str, streamapp_far_side: FarSide
) -> None:
    streamapp_far_side.cut.append(REDEEM)
    outcome = await kit(streamapp_far_side.url).run(streamapp_database, WISH)
    assert outcome.status == "COMPLETED"
    assert streamapp_far_side.names() == [REDEEM, REDEEM]
    assert streamapp_far_side.in_effect == 1


async def test_a_card_that_is_refused_leaves_nothing(
    streamapp_database: str, streamapp_far_side: FarSide
) -> None:
    streamapp_far_side.answers[REDEEM] = [(422, {"error": "no such card"})]
    outcome = await kit(streamapp_far_side.url).run(streamapp_database, WISH)
    assert (outcome.status, outcome.letters) == ("COMPENSATED", [("step_rejected", "")])
    assert "no such card" in (outcome.error or "")
    (reply,) = outcome.replies
    assert "sorry" in reply  # and no reward is promised
    assert "on its way" not in reply
    assert streamapp_far_side.names() == [REDEEM]  # refused for certain: nothing to give back


async def test_points_are_given_back_when_the_order_is_refused(
    streamapp_database: str, streamapp_far_side: FarSide
) -> None:
    outcome = await refused(streamapp_far_side).run(streamapp_database, WISH, THEN_REFUSED)
    assert outcome.status == "COMPENSATED"
    assert streamapp_far_side.names() == [REDEEM, "POST /orders", CANCEL]
    assert streamapp_far_side.in_effect == 0


async def test_points_are_given_back_when_nobody_knows_whether_they_were_taken(
    streamapp_database: str, streamapp_far_side: FarSide
) -> None:
    streamapp_far_side.cut += [REDEEM] * 4  # the answer to each attempt is lost
    outcome = await kit(streamapp_far_side.url).run(streamapp_database, WISH)
    assert outcome.status == "COMPENSATED"
    assert streamapp_far_side.names() == [REDEEM] * 4 + [CANCEL]
    assert streamapp_far_side.in_effect == 0


async def test_a_worker_may_die_anywhere(
    streamapp_database: str, streamapp_far_side: FarSide
) -> None:
    kills = await kit(streamapp_far_side.url).run_with_kills(streamapp_database, WISH)
    assert {kill.point for kill in kills} >= {"journal.committed", "step.started", "step.answered"}
    assert streamapp_far_side.in_effect == len(kills) + 1  # once for each message


async def test_a_worker_may_die_while_it_gives_points_back(
    streamapp_database: str, streamapp_far_side: FarSide
) -> None:
    under_test = refused(streamapp_far_side)
    kills = await under_test.run_with_kills(streamapp_database, WISH, THEN_REFUSED)
    assert [kill.point for kill in kills].count("step.answered") == 3
    assert streamapp_far_side.in_effect == 0
