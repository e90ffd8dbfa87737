"""A stored plan is read back as it was made."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamapp.saga.model import Plan, Step
from streamapp.saga.serialization import UnknownPlanVersion, plan_from_json, plan_to_json

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.text(), JSON, max_size=4)
STEPS = st.builds(
    Step,
    ordinal=st.integers(0),
    action=st.text(),
    sub_step=st.text(),
    executor=st.text(),
    version=st.integers(1),
    required=st.booleans(),
    params=OBJECTS,
    suggested=st.booleans(),
)
PLANS = st.builds(
    Plan,
    handler=st.text(),
    actions=st.lists(st.text()).map(tuple),
    steps=st.lists(STEPS, max_size=4).map(tuple),
    escalate=st.booleans(),
    metadata=OBJECTS,
    reply=st.none() | st.text(),
    apology=st.none() | st.dictionaries(st.text(), st.text()),
)


@given(PLANS)
def test_round_trip_through_json_text(plan: Plan) -> None:
    assert plan_from_json(json.loads(json.dumps(plan_to_json(plan)))) == plan


def test_the_stored_form_does_not_change_unnoticed() -> None:
    plan = Plan(
        handler="H",
        actions=("a",),
        steps=(Step(0, "a", "s", "task", 2, True, {"x": 1}, suggested=True),),
        escalate=True,
        metadata={"m": None},
        reply="r",
        apology={"text": "sorry"},
    )
    assert plan_to_json(plan) == {
        "version": 1,
        "handler": "H",
        "actions": ["a"],
        "steps": [
            {
                "ordinal": 0,
                "action": "a",
                "sub_step": "s",
                "executor": "task",
                "version": 2,
                "required": True,
                "params": {"x": 1},
                "suggested": True,
            }
        ],
        "escalate": True,
        "metadata": {"m": None},
        "reply": "r",
        "apology": {"text": "sorry"},
    }


def test_a_plan_of_a_program_without_apologies_has_none() -> None:
    plan = Plan("H", (), (), escalate=False, metadata={}, reply=None, apology={"text": "sorry"})
    stored = plan_to_json(plan)
    del stored["apology"]
    assert plan_from_json(stored).apology is None


def test_a_plan_of_another_form_is_refused() -> None:
    stored = plan_to_json(Plan("H", (), (), False, {}, None)) | {"version": 2}
    with pytest.raises(UnknownPlanVersion, match="version 2"):
        plan_from_json(stored)
