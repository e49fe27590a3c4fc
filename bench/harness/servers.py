"""Real servers for one benchmark: Postgres with fsync on, Redis, the service as a process.

Data is in a new folder under bench/.cache, which is removed at the end. It is on the checkout's
disk, so that commits have their real cost.
"""

from __future__ import annotations

import asyncio
import os
import resource
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.harness.counters import count_statements_of
from service.operate.embedded import PostgresServer, RedisServer, free_port
from streams.log.database import Database
from streams.log.migrations import migrate

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / "bench" / ".cache"

_READY_TIMEOUT_S = 30.0
_STOP_TIMEOUT_S = 15.0
_DATABASE = "seqstream"


class ServerError(Exception):
    """A server of the benchmark did not start or ended early."""


class Workspace:
    """A folder for one benchmark's data, logs and samples."""

    def __init__(self) -> None:
        CACHE.mkdir(parents=True, exist_ok=True)
        self.path = Path(tempfile.mkdtemp(prefix="run-", dir=CACHE))
        # Postgres runs as another user and must be able to enter its folder below this one.
        self.path.chmod(0o755)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if os.environ.get("SEQSTREAM_BENCH_KEEP") != "1":
            shutil.rmtree(self.path, ignore_errors=True)


class HttpProcess:
    """A server process that is ready when a URL answers 200 (or a port accepts)."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log_path: Path,
        *,
        port: int,
        ready_path: str,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.port = port
        self._command = list(command)
        self._log_path = log_path
        self._ready_url = f"http://127.0.0.1:{port}{ready_path}"
        self._env = {**os.environ, "PYTHONPATH": str(ROOT), **(env or {})}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        if self._process is None:
            raise ServerError(f"{self.name} is not running")
        return self._process.pid

    async def start(self) -> None:
        """Start the process and wait until it is ready. Raises `ServerError`."""
        process = self._process = self._spawn()
        deadline = time.monotonic() + _READY_TIMEOUT_S
        while not await asyncio.to_thread(self._is_ready):
            if process.poll() is not None or time.monotonic() > deadline:
                tail = self._log_path.read_text(errors="replace")[-2000:]
                await self.stop()
                raise ServerError(f"{self.name} did not become ready:\n{tail}")
            await asyncio.sleep(0.05)

    async def stop(self) -> None:
        """End the process: SIGTERM first, SIGKILL after a timeout."""
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.terminate()
        try:
            await asyncio.to_thread(process.wait, _STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            await asyncio.to_thread(process.wait, _STOP_TIMEOUT_S)

    def _spawn(self) -> subprocess.Popen[bytes]:
        with self._log_path.open("ab") as log:
            return subprocess.Popen(
                self._command, cwd=ROOT, env=self._env, stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(self._ready_url, timeout=2) as answer:
                return bool(answer.status == 200)
        except urllib.error.HTTPError:
            return False
        except OSError:
            return False


class Stores:
    """Postgres and Redis of one benchmark, with a migrated database."""

    def __init__(self, folder: Path) -> None:
        settings = {"shared_preload_libraries": "pg_stat_statements"}
        self.postgres = PostgresServer(folder / "postgres", fsync=True, settings=settings)
        self.redis = RedisServer(folder / "redis")
        self._folder = folder

    @property
    def database_url(self) -> str:
        """The service's database."""
        return self.postgres.database_url(_DATABASE)

    @property
    def database(self) -> str:
        """The name of the service's database."""
        return _DATABASE

    async def start(self) -> None:
        """Start both, and create and migrate the database."""
        (self._folder / "redis").mkdir(parents=True, exist_ok=True)
        await asyncio.to_thread(self.postgres.start)
        await asyncio.to_thread(self.redis.start)
        await asyncio.to_thread(self.postgres.create_database, _DATABASE)
        database = await Database.open(self.database_url, size=1)
        try:
            await migrate(database)
        finally:
            await database.close()
        await count_statements_of(self.database_url)

    async def stop(self) -> None:
        """Stop both."""
        await asyncio.to_thread(self.redis.stop)
        await asyncio.to_thread(self.postgres.stop)


def new_secret() -> str:
    """Return a secret for one run."""
    return secrets.token_hex(32)


def service_env(
    database_url: str, redis_url: str, hmac_secret: str, token_secret: str
) -> dict[str, str]:
    """Return the service's environment, with its limits turned off."""
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "SEQSTREAM_HMAC_SECRETS": hmac_secret or new_secret(),
        "SEQSTREAM_TOKEN_SECRETS": token_secret or new_secret(),
        "SEQSTREAM_POSTS_PER_SECOND": "0",
        "SEQSTREAM_MAX_STREAMS_PER_USER": "0",
        "SEQSTREAM_MAX_STREAMS_PER_PROJECT": "0",
        "SEQSTREAM_MAX_STREAMS": "0",
    }


def service_process(
    folder: Path, env: Mapping[str, str], *, port: int | None = None, workers: int = 1
) -> HttpProcess:
    """Return the service as a process that is not started."""
    chosen = port or free_port()
    command = [sys.executable, "-m", "service", "serve"]
    command += ["--host", "127.0.0.1", "--port", str(chosen)]
    if workers > 1:
        command += ["--workers", str(workers)]
    return HttpProcess(
        "seqstream", command, folder / "service.log", port=chosen,
        ready_path="/health/ready", env=env,
    )  # fmt: skip


def raise_file_limit() -> int:
    """Raise the limit of open files of this process and its children as far as allowed."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
