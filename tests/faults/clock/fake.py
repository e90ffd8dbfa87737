"""A wall clock of a process's own, set while it runs; the machine's is left alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_PLACES = ("/usr/lib", "/usr/local/lib", "/usr/lib64")


def library() -> Path | None:
    """libfaketime (Debian: ``faketime``), or None where it is not installed."""
    for place in _PLACES:
        found = sorted(Path(place).glob("**/faketime/libfaketimeMT.so.1"))
        if found:
            return found[0]
    return None


class FakeClock:
    """The wall clock of processes that are started with its ``environment``.

    Their monotonic clock is the machine's: a real clock that is set leaves it alone too.
    """

    def __init__(self, directory: Path) -> None:
        found = library()
        if found is None:
            if os.environ.get("CI") == "true":
                pytest.fail("libfaketime is missing: install the package faketime")
            pytest.skip("needs libfaketime (Debian: faketime)")
        self._file = directory / "clock"
        self.offset = 0.0
        self.set(0.0)
        self.environment = {
            "LD_PRELOAD": str(found),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            # Seconds; to look at every call would slow the process down by far.
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",  # its name in older versions
        }

    def set(self, offset: float) -> None:
        """Make it differ from the machine's by so many seconds from now on."""
        self.offset = offset
        # Replaced as a whole: a process may read it at any moment.
        new = self._file.with_suffix(".new")
        new.write_text(f"{offset:+.0f}\n")
        new.replace(self._file)
