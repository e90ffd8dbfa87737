"""A worker as its own process, configured by its environment alone."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from streamapp.settings import Settings, load

READY_WITHIN = 60.0  # seconds
ENDS_WITHIN = 60.0


def free_port() -> int:
    """A port of 127.0.0.1 that was free just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class WorkerProcess:
    """One worker; ``start`` after ``kill`` or ``stop`` is the same worker coming back.

    ``directory`` gets its log and its state. Nothing of this process's own ``STREAMAPP_`` and
    ``DATABASE_URL`` variables reaches it.
    """

    program: tuple[str, ...] = ("-m", "streamapp")  # what Python runs, before the command

    def __init__(self, directory: Path, environment: dict[str, str]) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.log = directory / "worker.log"
        self.environment = {
            "STREAMAPP_DATA_DIR": str(directory / "state"),
            "STREAMAPP_WEB_PORT": str(self.port),
            **environment,
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def settings(self) -> Settings:
        return load(self.environment)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether its process has been started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def _environ(self) -> dict[str, str]:
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("STREAMAPP_") and name != "DATABASE_URL"
        }
        return {**inherited, **self.environment}

    async def run(self, *arguments: str) -> tuple[int, str, str]:
        """Run a command to its end in the same environment; exit code, output, errors."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *self.program,
            *arguments,
            env=self._environ(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            output, errors = await asyncio.wait_for(process.communicate(), ENDS_WITHIN)
        finally:
            if process.returncode is None:
                process.kill()
        assert process.returncode is not None
        return process.returncode, output.decode(), errors.decode()

    def start(self) -> None:
        assert self._process is None or self._process.poll() is not None, "it runs already"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, *self.program, "worker"],
                env=self._environ(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    async def get(self, path: str) -> tuple[int, str]:
        """An answer of the worker's web server; status 0 when it does not answer."""
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(5)) as session,
                session.get(f"http://127.0.0.1:{self.port}{path}") as response,
            ):
                return response.status, await response.text()
        except (aiohttp.ClientError, OSError, TimeoutError):
            return 0, ""

    async def json(self, path: str) -> Any:
        """The same, from a part of the API that has to answer."""
        status, text = await self.get(path)
        assert status == 200, (status, text)
        return json.loads(text)

    async def metrics(self) -> dict[str, dict[tuple[str, ...], float]]:
        """Samples of ``/metrics`` by name and label values, in the order of the labels' names."""
        status, text = await self.get("/metrics")
        found: dict[str, dict[tuple[str, ...], float]] = {}
        if status == 200:
            for family in text_string_to_metric_families(text):
                for sample in family.samples:
                    labels = tuple(value for _, value in sorted(sample.labels.items()))
                    found.setdefault(sample.name, {})[labels] = sample.value
        return found

    async def wait_until_ready(self) -> None:
        """Returns once ``/health/ready`` says so; fails when the process ends before."""
        assert self._process is not None
        loop = asyncio.get_running_loop()
        deadline = loop.time() + READY_WITHIN
        while (await self.get("/health/ready"))[0] != 200:
            assert self._process.poll() is None, self.log.read_text()
            assert loop.time() < deadline, self.log.read_text()
            await asyncio.sleep(0.05)

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    async def ended(self) -> int:
        """Its exit code, once it ends."""
        assert self._process is not None
        return await asyncio.to_thread(self._process.wait, ENDS_WITHIN)

    async def stop(self) -> int:
        """SIGTERM, and the exit code."""
        self.signal(signal.SIGTERM)
        return await self.ended()

    def kill(self) -> None:
        """kill -9; nothing happens where it ended before."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(ENDS_WITHIN)
