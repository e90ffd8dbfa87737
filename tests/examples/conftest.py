"""The example package, installed beside streamapp."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.worker.conftest import Stage, stage

__all__ = ["Stage", "stage"]

EXAMPLE = Path(__file__).parents[2] / "examples" / "loyalty"


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The directory that it is installed in: on ``PYTHONPATH`` it is found like any other."""
    target = tmp_path_factory.mktemp("installed")
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
            *("--no-index", "--no-deps", "--no-build-isolation"),
            *("--target", str(target), str(EXAMPLE)),
        ],
        check=True,
        capture_output=True,
        timeout=100,
    )
    return str(target)


def beside(installed: str) -> dict[str, str]:
    """An environment in which the package is there, and this project only as it is installed."""
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith("STREAMAPP_")
    }
    return inherited | {"PYTHONPATH": installed}
