"""Dispatch: ours are ours, the rest goes to Faust, and little is imported for little."""

from __future__ import annotations

import subprocess
import sys
from types import ModuleType, SimpleNamespace

import pytest

import streamapp.cli
from streamapp.cli import FAUST, OWN, main
from tests.cli.support import ran, refused


def test_help_lists_ours_and_fausts() -> None:
    found = ran("--help")
    assert found.code == 0
    for name in (*OWN, *FAUST):
        assert f"  {name} " in found.out


@pytest.mark.parametrize("name", sorted(set(OWN) - {"demo", "explain"}))
def test_every_command_of_ours_has_help(name: str) -> None:
    found = ran(name, "--help")
    assert found.code == 0
    assert f"Usage: cli {name}" in found.out


@pytest.mark.parametrize("arguments", [["dlq", "explode"], ["migrate", "--nope"], ["send"]])
def test_wrong_use_is_code_2(arguments: list[str]) -> None:
    refused(ran(*arguments), 2, "Usage")


@pytest.mark.parametrize(
    "arguments", [["migrate"], ["doctor"], ["dlq", "list"], ["sagas", "list"], ["circuits", "list"]]
)
def test_a_wrong_setting_is_code_2_and_named(arguments: list[str]) -> None:
    found = ran(*arguments, env={"STREAMAPP_WEB_PORT": "lots"})
    refused(found, 2, "STREAMAPP_WEB_PORT='lots'")


def test_help_imports_neither_faust_nor_the_app() -> None:
    code = (
        "import sys, contextlib, streamapp.cli\n"
        "with contextlib.suppress(SystemExit): streamapp.cli.main(['--help'])\n"
        "sys.exit(any(m in sys.modules for m in ('faust', 'streamapp.app', 'aiokafka')))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize(
    "arguments", [["worker", "-l", "info"], ["--json", "tables"], ["-D", "x", "worker"], ["nope"]]
)
def test_the_rest_goes_to_faust(monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    seen: list[list[str]] = []
    module = ModuleType("streamapp.app")
    module.app = SimpleNamespace(main=lambda: seen.append(sys.argv[:]))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "streamapp.app", module)
    monkeypatch.setattr(streamapp, "app", module, raising=False)
    monkeypatch.setattr(sys, "argv", ["anything"])
    main(arguments)
    assert seen == [["streamapp", *arguments]]


def test_a_wrong_setting_stops_fausts_commands_with_its_sentence() -> None:
    found = subprocess.run(
        [sys.executable, "-m", "streamapp", "worker"],
        env={"STREAMAPP_WEB_PORT": "lots"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 2
    assert "STREAMAPP_WEB_PORT='lots'" in found.stderr
    assert "Traceback" not in found.stderr
