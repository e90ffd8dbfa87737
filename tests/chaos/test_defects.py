"""The defects fit the code at hand: each has something to put its other behaviour in place of."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.chaos.defects import DEFECTS


@pytest.mark.parametrize("name", sorted(DEFECTS))
def test_a_defect_can_be_planted(name: str) -> None:
    plant = f"from tests.chaos.defects import DEFECTS; DEFECTS[{name!r}]()"
    done = subprocess.run([sys.executable, "-c", plant], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
