"""Running commands as a shell would."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from click.testing import CliRunner

from streamapp.cli import cli


@dataclass(frozen=True)
class Ran:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON document on standard output."""
        return json.loads(self.out)


def ran(*arguments: str, env: Mapping[str, str] | None = None, stdin: bytes = b"") -> Ran:
    """Run a command of ours; an exception that is no exit fails the test."""
    result = CliRunner().invoke(cli, list(arguments), env=dict(env or {}), input=stdin)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Ran(result.exit_code, result.stdout, result.stderr)


def refused(found: Ran, code: int, *texts: str) -> None:
    """The command ended with this code, said why, and showed no stack trace."""
    assert found.code == code, found
    assert "Traceback" not in found.err
    for text in texts:
        if text not in found.err:
            pytest.fail(f"{text!r} is not in {found.err!r}")
