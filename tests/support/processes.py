"""Real service processes for tests: start, signal and stop them, and keep their logs.

Only processes that were started here are signalled, by their id. Postgres and Redis are in
`service.operate.embedded`; Redis with a replica, Sentinel or a cluster in `redis_topology.py`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Self

import httpx
import psutil  # type: ignore[import-untyped]

from service.operate.embedded import free_port
from tests.support.signing import HMAC_SECRET, TOKEN_SECRET
from tests.support.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
_CLI = (sys.executable, "-m", "service")
_START_TIMEOUT_S = 30.0
_STOP_TIMEOUT_S = 20.0
_LOG_LINE_CHARACTERS = 1000


def service_environment(
    database_url: str, redis_url: str, settings: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return the environment of a service process: the machine's, the tests', then `settings`.

    `settings` have their full names. SEQSTREAM_* variables of the caller's shell are dropped, so
    the service's limits are at their defaults.
    """
    own = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("SEQSTREAM_") and name not in ("DATABASE_URL", "REDIS_URL")
    }
    return own | {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "SEQSTREAM_HMAC_SECRETS": HMAC_SECRET,
        "SEQSTREAM_TOKEN_SECRETS": TOKEN_SECRET,
        "PYTHONUNBUFFERED": "1",
        **(settings or {}),
    }


def run_cli(
    arguments: Sequence[str], environment: Mapping[str, str], *, timeout_s: float = 60.0
) -> subprocess.CompletedProcess[str]:
    """Run one `seqstream` command to its end; raise AssertionError with its output if it fails."""
    done = subprocess.run(
        [*_CLI, *arguments], capture_output=True, text=True, timeout=timeout_s, cwd=ROOT,
        env=dict(environment), stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, (
        f"{arguments[0]} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
    )
    return done


@contextmanager
def postgres_folder() -> Iterator[Path]:
    """A temporary folder for Postgres' data.

    Not pytest's `tmp_path`: started by root, Postgres runs as another user, which may not enter
    pytest's folders in a container without the capability to.
    """
    with TemporaryDirectory(prefix="seqstream-postgres-") as folder:
        Path(folder).chmod(0o711)
        yield Path(folder)


def migrate(database_url: str) -> None:
    """Bring a database to the newest schema, as an operator would."""
    run_cli(["migrate"], service_environment(database_url, "redis://127.0.0.1:1/0"))


class ServiceProcess:
    """One `seqstream serve` process on a loopback port; its output goes to `<name>.log`.

    It keeps its port over restarts. No method blocks the event loop.
    """

    def __init__(
        self, name: str, folder: Path, environment: Mapping[str, str], *, port: int | None = None
    ) -> None:
        self.name = name
        self.log_path = folder / f"{name}.log"
        self.port = port or free_port()
        self.environment = dict(environment)
        self._process: subprocess.Popen[bytes] | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    @property
    def url(self) -> str:
        """Base URL."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Process id of the running process."""
        assert self._process is not None, f"{self.name} was not started"
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """How the process ended (negative: by that signal); None while it runs."""
        return None if self._process is None else self._process.poll()

    def is_running(self) -> bool:
        """Tell whether the process is alive."""
        return self._process is not None and self._process.poll() is None

    def open_files(self) -> int:
        """How many file descriptors the process has open."""
        return int(psutil.Process(self.pid).num_fds())

    def client_connections(self) -> int:
        """How many connections to its port the process has open."""
        connections = psutil.Process(self.pid).net_connections("tcp")
        return sum(
            connection.laddr.port == self.port and bool(connection.raddr)
            for connection in connections
        )

    def resident_bytes(self) -> int:
        """How much memory the process has resident."""
        return int(psutil.Process(self.pid).memory_info().rss)

    def peak_resident_bytes(self) -> int:
        """How much memory the process had resident at most so far (Linux only)."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024

    async def start(self) -> None:
        """Start the process and wait until it is ready."""
        self.spawn()
        await self.wait_ready()

    def spawn(self) -> None:
        """Start the process and return at once."""
        assert not self.is_running(), f"{self.name} is running"
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [*_CLI, "serve", "--host", "127.0.0.1", "--port", str(self.port)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=ROOT,
                env=self.environment, start_new_session=True,
            )  # fmt: skip

    async def wait_ready(self) -> None:
        """Wait until /health/ready says so; raise AssertionError with the log if it ends."""
        async with httpx.AsyncClient(timeout=2, verify=False, trust_env=False) as http:

            async def ready() -> bool:
                assert self.is_running(), f"{self.name} ended at start:\n{self.log_tail()}"
                try:
                    response = await http.get(f"{self.url}/health/ready")
                except httpx.TransportError:
                    return False
                # Another test's process may have taken the port while this one was starting.
                return response.status_code == 200 and self._listens()

            try:
                await wait_until(ready, timeout_s=_START_TIMEOUT_S, what=f"{self.name} ready")
            except TimeoutError as error:
                raise AssertionError(f"{error}:\n{self.log_tail()}") from None

    def _listens(self) -> bool:
        listening = psutil.Process(self.pid).net_connections("tcp4")
        return any(each.status == psutil.CONN_LISTEN for each in listening)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process."""
        os.kill(self.pid, number)

    async def kill(self) -> None:
        """End the process and its children with SIGKILL, as a crash would."""
        if self.is_running():
            os.killpg(self.pid, signal.SIGKILL)
            await self.wait_end()

    async def terminate(self) -> int:
        """Ask the process to end (SIGTERM) and return its exit status."""
        self.signal(signal.SIGTERM)
        return await self.wait_end()

    async def wait_end(self, *, timeout_s: float = _STOP_TIMEOUT_S) -> int:
        """Wait for the process to end by itself and return its exit status."""
        await wait_until(
            lambda: not self.is_running(), timeout_s=timeout_s, what=f"the end of {self.name}"
        )
        assert self._process is not None
        return self._process.returncode

    async def stop(self) -> None:
        """End the process in any state: SIGTERM, then SIGKILL and an AssertionError."""
        if not self.is_running():
            return
        # A stopped (SIGSTOP) process would never see the request to end.
        self.signal(signal.SIGCONT)
        try:
            await self.terminate()
        except TimeoutError:
            await self.kill()
            raise AssertionError(f"{self.name} ignored SIGTERM:\n{self.log_tail()}") from None

    def log_tail(self, lines: int = 30) -> str:
        """Return the last lines of the process's output."""
        return log_tail(self.log_path, lines)


def log_tail(path: Path, lines: int = 30) -> str:
    """Return the last lines of a log file, each cut to a bounded length."""
    if not path.exists():
        return ""
    end = path.read_text(errors="replace").splitlines()[-lines:]
    return "\n".join(line[:_LOG_LINE_CHARACTERS] for line in end)
