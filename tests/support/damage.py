"""What a bad disk, or a careless hand, does to the files of a RocksDB database."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

SPAN = 64  # bytes that are flipped at once


def newest(directory: Path, pattern: str) -> Path:
    """The file that was made last; there has to be one, or nothing would be damaged."""
    return max(directory.glob(pattern), key=lambda path: path.stat().st_mtime_ns)


def flip(path: Path, at: float) -> None:
    """Turn bytes around, beginning at a share ``at`` of the file."""
    content = bytearray(path.read_bytes())
    begin = min(int(len(content) * at), len(content) - 1)
    for index in range(begin, min(begin + SPAN, len(content))):
        content[index] ^= 0xFF
    with path.open("r+b") as file:  # in place: it may be open
        file.write(content)


def every(pattern: str, damage: Callable[[Path], None]) -> Callable[[Path], None]:
    def all_of(directory: Path) -> None:
        files = list(directory.glob(pattern))
        assert files, f"nothing to damage: {sorted(directory.iterdir())}"
        for file in files:
            damage(file)

    return all_of


def truncated(size: int) -> Callable[[Path], None]:
    return lambda path: os.truncate(path, min(size, path.stat().st_size // 2))


# Damage that a database, closed, cannot be opened or read with.
FATAL: dict[str, Callable[[Path], None]] = {
    "data in an SST file flipped": every("*.sst", lambda path: flip(path, 0.0)),
    "index of an SST file flipped": every("*.sst", lambda path: flip(path, 0.999)),
    "SST file truncated": every("*.sst", truncated(100)),
    "SST file gone": every("*.sst", Path.unlink),
    "MANIFEST truncated": every("MANIFEST-*", truncated(10)),
    "MANIFEST flipped": every("MANIFEST-*", lambda path: flip(path, 0.3)),
    "MANIFEST gone": every("MANIFEST-*", Path.unlink),
    "CURRENT emptied": every("CURRENT", lambda path: os.truncate(path, 0)),
    "CURRENT gone": every("CURRENT", Path.unlink),
}
