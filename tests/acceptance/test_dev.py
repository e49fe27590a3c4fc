"""docs/protocol.md §7, `seqstream dev`: all servers on one machine, closed to its other users."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import psutil  # type: ignore[import-untyped]
import pytest

from service.operate.embedded import free_port
from tests.support.processes import ROOT
from tests.support.waiting import wait_until

_START_TIMEOUT_S = 60.0
_END_TIMEOUT_S = 30.0


class _Dev:
    """A `seqstream dev` process."""

    def __init__(self, folder: Path, data: Path, settings: Mapping[str, str] | None = None) -> None:
        self.data = data
        self.port = free_port()
        self._log = folder / f"dev-{self.port}.log"
        self._settings = dict(settings or {})
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        self.spawn()
        await wait_until(self._has_started, timeout_s=_START_TIMEOUT_S, what="the printed commands")

    def spawn(self) -> None:
        command = [sys.executable, "-m", "service", "dev"]
        command += ["--data", str(self.data), "--port", str(self.port)]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=ROOT,
                env={**os.environ, **self._settings}, start_new_session=True,
            )  # fmt: skip

    def _has_started(self) -> bool:
        assert self.process.poll() is None, self.printed()
        return "Ctrl-C ends everything" in self.printed()

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    def printed(self) -> str:
        return self._log.read_text(errors="replace")

    def line(self, pattern: str) -> str:
        """Return the only printed line that matches the pattern."""
        (line,) = (line for line in self.printed().splitlines() if re.search(pattern, line))
        return line

    def children(self) -> list[psutil.Process]:
        """All descendants: the servers, the service and the worker, with their child processes."""
        return list(psutil.Process(self.process.pid).children(recursive=True))

    async def end(self) -> int:
        """Send SIGINT, as Ctrl-C does, and return the exit status."""
        self.process.send_signal(signal.SIGINT)
        await self.wait()
        return self.process.returncode

    async def kill(self) -> None:
        """Send SIGKILL to this process only."""
        self.process.kill()
        await self.wait()

    async def wait(self) -> None:
        await wait_until(
            lambda: self.process.poll() is not None, timeout_s=_END_TIMEOUT_S, what="the end of dev"
        )


def _modes(path: Path) -> dict[Path, int]:
    """Return the modes of all parent folders of a path."""
    return {folder: stat.S_IMODE(folder.stat().st_mode) for folder in path.parents}


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder readable by every user, so that only the data folder's own mode protects it."""
    with TemporaryDirectory(prefix="seqstream-dev-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(scope="module")
async def dev(folder: Path) -> AsyncIterator[_Dev]:
    """A running process whose data folder an earlier version left readable by all users."""
    data = folder / "data"
    data.mkdir(mode=0o755)
    running = _Dev(folder, data)
    try:
        await running.start()
        yield running
    finally:
        await running.end()


async def test_only_the_service_listens_on_a_port(dev: _Dev) -> None:
    """On a TCP port, any local user could make Postgres and Redis write files as the dev user."""
    ports = {
        (connection.laddr.ip, connection.laddr.port)
        for process in dev.children()
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert ports == {("127.0.0.1", dev.port)}


async def test_the_data_folder_is_closed_to_other_users(dev: _Dev) -> None:
    """It holds the signing secrets and the sockets."""
    assert stat.S_IMODE(dev.data.stat().st_mode) == 0o700
    secrets = sorted(dev.data.glob("seqstream_*_secrets.txt"))
    assert [stat.S_IMODE(path.stat().st_mode) for path in secrets] == [0o600, 0o600]


# Runs as another user: prints the files it can open and the sockets it can connect to.
_PROBE_AS_OTHER_USER = """
import json, os, socket, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
reached = []
paths = json.loads(sys.argv[1])
for path in paths:
    for flags in (os.O_RDONLY, os.O_WRONLY):
        try:
            os.close(os.open(path, flags))
        except OSError:
            continue
        reached.append(["file", path])
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(5)
        try:
            probe.connect(path)
        except OSError:
            continue
        reached.append(["socket", path])
print(json.dumps(reached))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
async def test_another_user_reaches_no_socket_and_no_file(dev: _Dev) -> None:
    """Only the user who started the servers may use `COPY FROM PROGRAM` and `CONFIG SET dir`."""
    files = [str(path) for path in dev.data.rglob("*")]
    sockets = {
        connection.laddr
        for process in dev.children()
        for connection in process.net_connections("unix")
        if isinstance(connection.laddr, str) and connection.laddr
    }
    assert {Path(path).name for path in sockets} >= {".s.PGSQL.5432", "redis.sock"}
    command = [sys.executable, "-c", _PROBE_AS_OTHER_USER, json.dumps([*files, *sockets])]
    probe = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, timeout=60, check=True
    )
    assert json.loads(probe.stdout) == []


def _run(line: str, *more: str) -> str:
    done = subprocess.run(
        [*shlex.split(line), *more], capture_output=True, text=True, timeout=30, check=True,
        cwd=ROOT, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return done.stdout


async def test_the_printed_psql_works(dev: _Dev) -> None:
    """The printed psql command line runs."""
    line = dev.line("bin/psql ")
    printed = await asyncio.to_thread(_run, line, "-Atc", "SELECT id FROM projects")
    assert printed == "demo\n"


async def test_the_printed_redis_cli_works(dev: _Dev) -> None:
    """The printed redis-cli command line runs."""
    assert await asyncio.to_thread(_run, dev.line("bin/redis-cli "), "PING") == "PONG\n"


async def test_the_printed_addresses_work_with_other_commands(dev: _Dev) -> None:
    """`DATABASE_URL` and `REDIS_URL` use sockets, whatever the caller's PGPORT is."""
    addresses = {name: dev.line(f"^{name} ").split()[1] for name in ("DATABASE_URL", "REDIS_URL")}
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-m", "service", "doctor"], capture_output=True,
        text=True, timeout=60, cwd=ROOT, check=False,
        env={**os.environ, **addresses, "PGPORT": "1", "PGHOST": "localhost"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


async def test_the_printed_token_posts(dev: _Dev) -> None:
    """The service uses both servers and accepts the printed token."""
    token = dev.line("^export TOKEN=").partition("=")[2]
    url = f"http://127.0.0.1:{dev.port}/v1/projects/demo/chat/messages"
    async with httpx.AsyncClient(trust_env=False, verify=False) as http:
        headers = {"Authorization": f"Bearer {token}"}
        posted = await http.post(url, json={"message": "hello"}, headers=headers)
    assert (posted.status_code, posted.json()["seq"]) == (201, 1)


async def test_the_worker_has_no_signing_secret(dev: _Dev) -> None:
    """The worker authenticates nobody, and builds are its child processes."""
    (worker,) = (child for child in dev.children() if child.cmdline()[-1:] == ["worker"])
    assert not {name for name in worker.environ() if name.endswith("_SECRETS")}


async def test_a_killed_dev_process_leaves_nothing_behind(folder: Path) -> None:
    """SIGKILL: its processes end, parent folders keep their modes, and the next start works."""
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    data = closed / "deeper" / "data"
    data.parent.mkdir(mode=0o750)
    before = _modes(data)
    first = _Dev(folder, data)
    await first.start()
    assert _modes(data) == before
    children = first.children()
    names = {child.name() for child in children}
    assert {"postgres", "redis-server"} <= names
    await first.kill()
    await wait_until(
        lambda: not any(_is_running(child) for child in children),
        timeout_s=_END_TIMEOUT_S, what="the end of its processes",
    )  # fmt: skip
    assert _modes(data) == before
    second = _Dev(folder, data)
    try:
        await second.start()
    finally:
        assert await second.end() == 0
    assert _modes(data) == before


def _is_running(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
async def test_a_data_folder_of_another_user_is_refused(folder: Path) -> None:
    """Its owner could replace the files of the running servers."""
    data = folder / "theirs"
    data.mkdir(mode=0o755)
    os.chown(data, 65534, 65534)
    refused = _Dev(folder, data)
    refused.spawn()
    await refused.wait()
    assert refused.process.returncode == 1
    (line,) = refused.printed().splitlines()
    assert line.startswith("error: ")
    assert "belongs to another user" in line
    assert (data.stat().st_uid, stat.S_IMODE(data.stat().st_mode)) == (65534, 0o755)
