"""docs/protocol.md §7, `serve --workers`: processes on one socket, restarted when they die."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import httpx
import psutil  # type: ignore[import-untyped]
import pytest

from service.operate.embedded import free_port
from tests.acceptance.conftest import NewProject, Services
from tests.support.processes import ROOT, service_environment
from tests.support.raw_stream import raw_request
from tests.support.signing import HMAC_SECRET, TOKEN_SECRET
from tests.support.sse_client import SseClient
from tests.support.waiting import wait_until

_STREAMS = 10


class _Supervised:
    """`seqstream serve --workers 2`."""

    def __init__(
        self, folder: Path, environment: Mapping[str, str], *, python: str = sys.executable
    ) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._python = python
        self._environment = dict(environment)
        self._log = folder / "workers.log"
        self._process: subprocess.Popen[bytes] | None = None

    def spawn(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [self._python, "-m", "service", "serve", "--port", str(self.port),
                 "--workers", "2"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=ROOT,
                env=self._environment, start_new_session=True,
            )  # fmt: skip

    async def start(self) -> None:
        """Start, and wait until there are two workers and one of them is ready."""
        self.spawn()
        await wait_until(self._answers, timeout_s=30, what="an answer")
        await wait_until(lambda: len(self.workers()) == 2, what="two workers")

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    def printed(self) -> str:
        return self._log.read_text()

    def workers(self) -> list[psutil.Process]:
        """The worker processes."""
        return list(psutil.Process(self.process.pid).children())

    def connections_of(self, worker: psutil.Process) -> int:
        """Return the number of connections to the port that a worker has."""
        connections = worker.net_connections("tcp")
        return sum(each.laddr.port == self.port and bool(each.raddr) for each in connections)

    async def metrics(self) -> dict[str, float]:
        """Return the metrics from a scrape, which either worker may serve."""
        async with httpx.AsyncClient(trust_env=False, verify=False) as http:
            text = (await http.get(f"{self.url}/metrics")).text
        lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
        return {name: float(value) for name, _, value in lines}

    async def _answers(self) -> bool:
        assert self.process.poll() is None, self.printed()
        try:
            async with httpx.AsyncClient(trust_env=False, verify=False) as http:
                return (await http.get(f"{self.url}/health/ready")).status_code == 200
        except httpx.TransportError:
            return False

    async def end(self) -> int:
        """Send SIGTERM and return the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return await self.wait_end()

    async def wait_end(self) -> int:
        await wait_until(
            lambda: self.process.poll() is not None, timeout_s=15, what="the supervisor's exit"
        )
        return self.process.returncode

    def stop(self) -> None:
        """Kill the remaining processes."""
        if self.process.poll() is None:
            workers = self.workers()
            self.process.kill()
            self.process.wait(10)
            for worker in workers:
                with contextlib.suppress(psutil.NoSuchProcess):
                    worker.kill()


@pytest.fixture
async def supervised(services: Services, tmp_path: Path) -> AsyncIterator[_Supervised]:
    """Two workers on the shared servers."""
    environment = service_environment(services.database_url, services.redis.url)
    running = _Supervised(tmp_path, environment)
    try:
        await running.start()
        yield running
    finally:
        running.stop()


def _environment_block(pid: int) -> bytes:
    return Path(f"/proc/{pid}/environ").read_bytes()


async def test_no_process_has_a_secret_in_its_environment(
    supervised: _Supervised, services: Services
) -> None:
    """docs/builds.md: processes of the same user can read each other's environment."""
    processes = [supervised.process.pid, *(worker.pid for worker in supervised.workers())]
    blocks = [_environment_block(pid) for pid in processes]
    secrets = [HMAC_SECRET, TOKEN_SECRET, services.database_url, services.redis.url]
    shown = [secret for block in blocks for secret in secrets if secret.encode() in block]
    assert [len(block) > 0 for block in blocks] == [True] * 3
    assert shown == []


async def test_a_dead_worker_is_replaced_while_the_other_serves(
    services: Services, supervised: _Supervised, new_project: NewProject
) -> None:
    """§7: all workers share one address; a dead one is restarted; exit 0 on SIGTERM."""
    project = await new_project(services.a)
    dead = supervised.workers()[0]
    async with SseClient("w", [supervised.url], project.id, project.token) as client:
        await client.wait_live()
        dead.kill()
        await wait_until(
            lambda: len([each for each in supervised.workers() if each != dead]) == 2,
            timeout_s=20, what="another worker",
        )  # fmt: skip
        await project.fill(3)
        await client.wait_seq(3)
    assert "messages_appended_total" in await supervised.metrics()
    assert await supervised.end() == 0


async def test_gauges_of_a_dead_worker_are_removed(
    services: Services, supervised: _Supervised, new_project: NewProject
) -> None:
    """§9: gauges such as `sse_connections` and `redis_up` cover running workers only."""
    project = await new_project(services.a)
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(_STREAMS):
            stream = await stack.enter_async_context(raw_request(supervised.port, project.stream()))
            await stream.wait_for("stream.live")
        assert (await supervised.metrics())["sse_connections"] == _STREAMS
        dead, other = sorted(supervised.workers(), key=supervised.connections_of, reverse=True)
        left = _STREAMS - supervised.connections_of(dead)
        folder = Path(dead.environ()["PROMETHEUS_MULTIPROC_DIR"])
        dead.kill()

        async def removed() -> bool:
            return (await supervised.metrics())["sse_connections"] == left

        await wait_until(removed, timeout_s=20, what=f"{left} streams")
        assert other.is_running()
        assert _live_gauges(folder, dead.pid) == []


def _live_gauges(folder: Path, pid: int) -> list[Path]:
    return list(folder.glob(f"gauge_live*_{pid}.db"))


async def test_workers_end_with_a_supervisor_that_is_killed(supervised: _Supervised) -> None:
    """Otherwise the workers would keep the port, and the next start would fail."""
    workers = supervised.workers()
    supervised.process.kill()
    supervised.process.wait(10)
    await wait_until(
        lambda: not any(_is_running(worker) for worker in workers),
        timeout_s=15,
        what="the workers' exit",
    )
    socket.create_server(("127.0.0.1", supervised.port)).close()


def _is_running(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _interpreter_below(folder: Path) -> Path:
    python = folder / "python"
    python.symlink_to(Path(sys.executable).resolve())
    return python


async def test_a_worker_that_cannot_be_started_stops_no_other(
    services: Services, tmp_path: Path
) -> None:
    """As when a machine runs out of processes or memory: the supervisor keeps retrying."""
    python = _interpreter_below(tmp_path)
    environment = service_environment(
        services.database_url, services.redis.url, {"PYTHONPATH": os.pathsep.join(sys.path)}
    )
    supervised = _Supervised(tmp_path, environment, python=str(python))
    try:
        await supervised.start()
        dead, other = supervised.workers()
        python.rename(tmp_path / "away")
        dead.kill()
        await wait_until(
            lambda: "worker cannot be started" in supervised.printed(),
            timeout_s=20,
            what="a failed start",
        )
        assert supervised.workers() == [other]
        assert (await supervised.metrics())["sse_connections"] == 0
        (tmp_path / "away").rename(python)
        await wait_until(lambda: len(supervised.workers()) == 2, timeout_s=20, what="two workers")
        assert await supervised.end() == 0
    finally:
        supervised.stop()


async def test_sigterm_while_workers_start_stops_all(services: Services, tmp_path: Path) -> None:
    """§6: exit 0, however early SIGTERM comes."""
    environment = service_environment(services.database_url, services.redis.url)
    supervised = _Supervised(tmp_path, environment)
    supervised.spawn()
    try:
        await wait_until(lambda: supervised.workers() != [], what="the first worker")
        workers = supervised.workers()
        assert await supervised.end() == 0
        assert not any(_is_running(worker) for worker in workers)
    finally:
        supervised.stop()


async def test_a_port_in_use_is_reported_in_one_line(services: Services, tmp_path: Path) -> None:
    """An expected failure prints no stack trace."""
    environment = service_environment(services.database_url, services.redis.url)
    supervised = _Supervised(tmp_path, environment)
    with socket.create_server(("127.0.0.1", supervised.port)):
        supervised.spawn()
        assert await supervised.wait_end() == 1
    (line,) = supervised.printed().splitlines()
    assert "cannot listen" in line
    assert "Address already in use" in line
