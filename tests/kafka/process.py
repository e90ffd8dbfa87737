"""A worker as its own process, configured by its environment alone."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import aiohttp

from streamapp.settings import Settings, load
from tests.kafka.broker import free_ports

READY_WITHIN = 60.0  # seconds
STOP_WITHIN = 60.0


class WorkerProcess:
    """One worker; ``start`` after ``kill`` is the same worker coming back."""

    def __init__(self, directory: Path, environment: dict[str, str]) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        (self.port,) = free_ports(1)
        self.log = directory / "worker.log"
        self.environment = {
            **environment,
            "STREAMAPP_DATA_DIR": str(directory / "state"),
            "STREAMAPP_WEB_PORT": str(self.port),
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def settings(self) -> Settings:
        return load(self.environment)

    async def run(self, *arguments: str) -> tuple[int, str]:
        """Run another command in the same environment; gives exit code and standard output."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "streamapp",
            *arguments,
            env={**os.environ, **self.environment},
            stdout=asyncio.subprocess.PIPE,
        )
        output, _ = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode is not None
        return process.returncode, output.decode()

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "streamapp", "worker"],
                env={**os.environ, **self.environment},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    async def get(self, path: str) -> tuple[int, str]:
        """An answer of the worker's API; status 0 when it does not answer."""
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(5)) as session,
                session.get(f"http://127.0.0.1:{self.port}{path}") as response,
            ):
                return response.status, await response.text()
        except (aiohttp.ClientError, TimeoutError):
            return 0, ""

    async def wait_until_ready(self) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + READY_WITHIN
        while (await self.get("/health/ready"))[0] != 200:
            assert self._process is not None
            assert self._process.poll() is None, self.log.read_text()
            assert loop.time() < deadline, self.log.read_text()
            await asyncio.sleep(0.1)

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.signal(signal.SIGKILL)
            self._process.wait(STOP_WITHIN)

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        assert self._process is not None
        self.signal(signal.SIGTERM)
        return self._process.wait(STOP_WITHIN)
