"""What one has to know of the machine and the versions to read the figures."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from benchmarks.options import Options
from benchmarks.servers import POSTGRES, Servers
from tests.kafka.broker import jars

_LIBRARIES = ("faust-streaming", "aiokafka", "asyncpg", "rocksdict")


async def facts(servers: Servers, options: Options) -> dict[str, Any]:
    """In the order in which they are shown. Nothing names the machine."""
    return {
        "commit": _commit(),
        "processors": os.cpu_count(),
        "processor": _processor(),
        "memory GiB": round(psutil.virtual_memory().total / 1024**3),
        "load average before": f"{os.getloadavg()[0]:.1f}",
        "fdatasync ms": round(servers.sync_milliseconds(), 2),
        "system": f"{platform.system()} {platform.machine()}",
        "Python": platform.python_version(),
        "Kafka": next(jars().glob("kafka_2.13-*.jar")).stem.removeprefix("kafka_2.13-"),
        "PostgreSQL": await servers.version(),
        "libraries": ", ".join(f"{name} {version(name)}" for name in _LIBRARIES),
        "PostgreSQL settings": ", ".join(f"{name}={value}" for name, value in POSTGRES.items()),
        "messages": f"{options.messages:,} of {options.size} bytes, {options.leads:,} leads, "
        f"{options.partitions} partitions",
        "rounds": options.rounds,
    }


def _commit() -> str:
    """The commit, and whether the tree differs from it."""
    try:
        commit = _git("rev-parse", "--short=12", "HEAD").strip()
        return f"{commit}, changed" if _git("status", "--porcelain").strip() else commit
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], check=True, capture_output=True, text=True, timeout=60
    ).stdout


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"
