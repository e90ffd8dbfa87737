"""``streamapp actions list`` and ``streamapp intents list``."""

from __future__ import annotations

from tests.cli.support import ran

COLUMNS = {
    "action",
    "phase",
    "required",
    "alone",
    "with_services",
    "services",
    "intents",
    "package",
}


def test_every_action_is_listed_in_the_order_of_execution() -> None:
    rows = ran("actions", "list", "--json").json
    assert len(rows) == len({row["action"] for row in rows}) == 60
    assert all(row.keys() == COLUMNS for row in rows)
    phases = [row["phase"] for row in rows]
    order = ["look_up", "effect", "notification", "reply"]
    assert phases == sorted(phases, key=order.index)
    assert set(phases) == set(order)


def test_an_action_tells_its_steps_its_services_and_who_asks_for_it() -> None:
    by_name = {row["action"]: row for row in ran("actions", "list", "--json").json}
    assert by_name["notify_supervisor"] == {
        "action": "notify_supervisor",
        "phase": "notification",
        "required": False,
        "alone": ["task"],
        "with_services": ["task", "email", "slack"],
        "services": ["email", "slack"],
        "intents": ["ORDER_REQUEST", "COMPLAINT", "UNKNOWN"],
        "package": "streamapp",
    }
    assert by_name["check_inventory"]["services"] == ["inventory"]
    assert by_name["check_inventory"]["with_services"] == ["inventory_lookup"]
    assert by_name["send_calendar_invite"]["with_services"] == ["invite"]
    assert by_name["create_order"]["required"] is True
    assert all(row["intents"] for row in by_name.values())
    assert len(by_name["flag_for_review"]["intents"]) == 7  # routing adds it to any plan in doubt


def test_every_intent_is_listed_in_the_order_of_asking() -> None:
    rows = ran("intents", "list", "--json").json
    assert [(row["intent"], row["priority"]) for row in rows] == [
        ("ORDER_REQUEST", 10),
        ("COMPLAINT", 10),
        ("PRICING_INQUIRY", 8),
        ("AVAILABILITY_INQUIRY", 7),
        ("SCHEDULE_CALL", 6),
        ("GENERAL_INQUIRY", 5),
        ("UNKNOWN", 1),
    ]
    unknown = rows[-1]
    assert unknown["handler"] == "UnknownHandler"
    assert "flag_for_review" in unknown["actions"]


def test_for_people_there_are_tables() -> None:
    actions = ran("actions", "list")
    assert actions.code == 0
    (line,) = (row for row in actions.out.splitlines() if row.startswith("create_calendar_event"))
    assert line.split() == [
        "create_calendar_event",
        "effect",
        "yes",
        "task",
        "calendar_event",
        "SCHEDULE_CALL",
        "streamapp",
    ]
    intents = ran("intents", "list")
    assert intents.code == 0
    titles = ["intent", "priority", "handler", "package", "actions"]
    assert intents.out.splitlines()[0].split() == titles
    assert len(intents.out.splitlines()) == 8
