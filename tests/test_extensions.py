"""Handlers and actions of other packages: found, and refused with a sentence when they cannot
work."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any, ClassVar

import pytest

from streamapp.actions.base import CallContext, Phase, PlanningContext, StepContext, StepDraft
from streamapp.actions.extension import Action, ExternalAction, OwnAction, task_for
from streamapp.actions.nothing_called import no_calls
from streamapp.extensions import ACTIONS, INTENTS, Catalogue, ExtensionError, load_catalogue
from streamapp.intents.base import Decision, IntentHandler, Thresholds
from streamapp.saga.model import Message
from streamapp.saga.operations import InsertActivity, Operation
from tests.actions import building


class WaveHandler(IntentHandler):
    intent = "WAVE"
    priority = 3
    emits = frozenset({"note_wave", "wave_back"})

    def decide(self, message: Message, thresholds: Thresholds) -> Decision:
        return Decision(("note_wave", "wave_back"), escalate=False)


class SecondOrders(WaveHandler):
    intent = "ORDER_REQUEST"


class Ambitious(WaveHandler):
    intent = "AMBITION"
    emits = frozenset({"fly"})


class NoPriority(IntentHandler):
    intent = "NO_PRIORITY"
    emits = frozenset()

    def decide(self, message: Message, thresholds: Thresholds) -> Decision:
        return Decision((), escalate=False)


class NoteWave(OwnAction):
    name = "note_wave"

    def operations(self, context: StepContext) -> Sequence[Operation]:
        return (InsertActivity("id", "waved", "Somebody waved"),)

    def compensation(self, context: StepContext, output: Mapping[str, Any]) -> Sequence[Operation]:
        return ()


class WaveBack(ExternalAction):
    name = "wave_back"
    service = "flags"
    key_honoured = True
    compensable = True
    closed: ClassVar[int] = 0

    def params(self, context: PlanningContext) -> dict[str, Any]:
        return {"confidence": context.message.confidence}

    def request(self, context: StepContext) -> bytes:
        return b""

    async def call(self, request: bytes, context: CallContext) -> dict[str, Any]:
        return {}

    def compensation_request(
        self, context: StepContext, forward_key: str, output: Mapping[str, Any] | None
    ) -> bytes:
        return b""

    async def compensate(self, request: bytes, context: CallContext) -> dict[str, Any]:
        return {}

    async def close(self) -> None:
        WaveBack.closed += 1
        raise OSError("it does not close")


class Newer(WaveBack):
    name = "wave_again"
    versions = frozenset({1, 3})


class CreateOrderAgain(NoteWave):
    name = "create_order"


class Unkeyed(WaveBack):
    name = "unkeyed"
    key_honoured = False


class Undeclared(ExternalAction):
    name = "undeclared"
    service = "flags"

    def request(self, context: StepContext) -> bytes:
        return b""

    async def call(self, request: bytes, context: CallContext) -> dict[str, Any]:
        return {}


class NotUndone(WaveBack):
    name = "not_undone"
    compensable = False


class WithoutCompensation(OwnAction):
    name = "without_compensation"

    def operations(self, context: StepContext) -> Sequence[Operation]:
        return ()


class Nameless(NoteWave):
    name = ""


class ByHand(Action):
    """Brings no executor: a person does it."""

    name = "do_by_hand"
    phase = Phase.EFFECT

    def steps(self, context: PlanningContext) -> Sequence[StepDraft]:
        return (task_for("sales_team", "Do it.", self.name, context, priority="high"),)


class OnlyWithConfiguration(NoteWave):
    name = "only_with_configuration"

    def __init__(self) -> None:
        raise LookupError("FLAGS_URL is not set")


def point(group: str, name: str, module: str = __name__) -> EntryPoint:
    return EntryPoint(name.lower(), f"{module}:{name}", group)


def load(*points: EntryPoint) -> Catalogue:
    return load_catalogue(no_calls(), points)


WAVING = (
    point(INTENTS, "WaveHandler"),  # before the actions that it names
    point(ACTIONS, "WaveBack"),
    point(ACTIONS, "NoteWave"),
)


def test_they_are_registered_beside_ours() -> None:
    ours, both = load(), load(*WAVING)
    assert both.actions.names - ours.actions.names == {"note_wave", "wave_back"}
    assert both.intents.intents - ours.intents.intents == {"WAVE"}
    assert (ours.services, both.services) == ((), ("flags",))
    asked = [handler.intent for handler in both.intents.handlers]
    assert asked.index("GENERAL_INQUIRY") < asked.index("WAVE") < asked.index("UNKNOWN")


def test_an_action_is_one_step_that_it_carries_out_itself() -> None:
    catalogue = load(*WAVING, point(ACTIONS, "Newer"))
    about = building.message("WAVE", confidence=0.75)
    plan = building.plan(catalogue.actions, ["wave_back", "wave_again", "note_wave"], about=about)
    assert [(s.name, s.executor, s.version, s.required, s.params) for s in plan.steps] == [
        ("wave_back", "wave_back", 1, True, {"confidence": 0.75}),
        ("wave_again", "wave_again", 3, True, {"confidence": 0.75}),
        ("note_wave", "note_wave", 1, True, {}),
    ]
    assert isinstance(catalogue.actions.executor("wave_back", 1), WaveBack)
    assert isinstance(catalogue.actions.executor("wave_again", 1), Newer)  # plans of before


def test_an_action_may_have_people_do_it() -> None:
    (step,) = building.plan(load(point(ACTIONS, "ByHand")).actions, ["do_by_hand"]).steps
    assert (step.executor, step.required) == ("task", True)
    assert step.params["task_type"] == "do_by_hand"
    assert step.params["assigned_to_id"] == "sales_team"
    assert (step.params["priority"], step.params["due_in"]) == ("high", 86_400.0)


async def test_all_are_closed_though_one_fails(caplog: pytest.LogCaptureFixture) -> None:
    before = WaveBack.closed
    await load(*WAVING, point(ACTIONS, "Newer")).close()
    assert WaveBack.closed == before + 2
    assert "wave_back does not close" in caplog.text


@pytest.mark.parametrize(
    ("points", "sentence"),
    [
        ([point(INTENTS, "SecondOrders"), *WAVING], "OrderRequestHandler does already"),
        ([WAVING[0], *WAVING], "cannot handle WAVE: WaveHandler does already"),
        ([point(INTENTS, "Ambitious")], "not registered: fly"),
        ([WAVING[0], WAVING[2]], "not registered: wave_back"),
        ([point(INTENTS, "NoPriority")], "does not define 'priority'"),
        ([point(INTENTS, "NoteWave")], "no subclass of streamapp.intents.base.IntentHandler"),
        ([point(ACTIONS, "WaveHandler")], "no subclass of streamapp.actions.extension.Action"),
        ([point(ACTIONS, "building")], "no subclass of"),
        ([point(ACTIONS, "CreateOrderAgain")], "'create_order' is registered twice"),
        ([WAVING[1], WAVING[1]], "'wave_back' is registered twice"),
        ([point(ACTIONS, "Undeclared")], "does not say whether its service honours"),
        ([point(ACTIONS, "Unkeyed")], "repeated, it acts twice"),
        ([point(ACTIONS, "NotUndone")], "which cannot be compensated"),
        ([point(ACTIONS, "WithoutCompensation")], "abstract method compensation"),
        ([point(ACTIONS, "Nameless")], "has no name"),
        ([point(ACTIONS, "OnlyWithConfiguration")], "FLAGS_URL is not set"),
        ([point(ACTIONS, "Missing")], "cannot be loaded: AttributeError"),
        ([point(ACTIONS, "Anything", "no_such_module")], "cannot be loaded: ModuleNotFoundError"),
    ],
)
def test_what_cannot_work_is_refused_with_a_sentence(
    points: Sequence[EntryPoint], sentence: str
) -> None:
    with pytest.raises(ExtensionError, match=sentence) as refused:
        load(*points)
    assert str(refused.value).startswith("Package unknown, entry point ")


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory in which packages are found, as if they were installed."""
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("waving", None)


def install(directory: Path, name: str, points: EntryPoints) -> None:
    information = directory / f"{name}-1.2.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
    lines = [f"[{each.group}]\n{each.name} = {each.value}\n" for each in points]
    (information / "entry_points.txt").write_text("\n".join(lines))


def test_those_of_installed_packages_are_found(installed: Path) -> None:
    install(installed, "waving", EntryPoints([WAVING[1]]))
    install(installed, "noting", EntryPoints([WAVING[2]]))
    catalogue = load_catalogue(no_calls())
    assert catalogue.package(ACTIONS, "wave_back") == "waving 1.2"
    assert catalogue.package(ACTIONS, "note_wave") == "noting 1.2"
    assert catalogue.package(ACTIONS, "create_order") == "streamapp"
    assert [action.name for action in catalogue.extensions] == ["note_wave", "wave_back"]


def test_a_package_that_cannot_be_loaded_is_named(installed: Path) -> None:
    install(installed, "waving", EntryPoints([EntryPoint("wave", "waving:Wave", ACTIONS)]))
    (installed / "waving.py").write_text("raise RuntimeError('not today')")
    with pytest.raises(ExtensionError) as refused:
        load_catalogue(no_calls())
    assert str(refused.value) == (
        "Package waving 1.2, entry point wave of streamapp.actions cannot be loaded: "
        "RuntimeError('not today')."
    )
