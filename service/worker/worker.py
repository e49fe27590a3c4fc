"""`seqstream worker`: claims builds and runs them, at most `concurrency` at once.

Redis announces new builds; the worker also polls for them once a second. One attempt at a build is
in `build_run.py`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
import socket
import sys
import time
import uuid
from collections.abc import Mapping

from service.settings import Settings
from service.worker.build_command import Command, Example, Runner
from service.worker.build_environ import of_a_build
from service.worker.build_keeper import adopt_orphans
from service.worker.build_run import BuildRun, BuildTimes
from service.worker.keepers import BuildLimits, Keepers
from streams.builds.build_news import News
from streams.eventlog import EventLog, EventLogConfig
from streams.model.errors import StreamsError

_log = logging.getLogger(__name__)

_POLL_EVERY_S = 1.0
_SWEEP_EVERY_S = 2.0
# Longer than it takes to kill a build, its keeper and its orphans.
_STOP_TIMEOUT_S = 5.0


class Worker:
    """Claims and runs builds until stopped."""

    def __init__(
        self,
        log: EventLog,
        runner: Runner,
        times: BuildTimes,
        *,
        concurrency: int,
        grace_s: float = 4.0,
    ) -> None:
        self.worker_id = f"{socket.gethostname()[:40]}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._builds = log.builds
        self._runner = runner
        self._times = times
        self._concurrency = concurrency
        self._grace_s = grace_s
        self._runs: dict[asyncio.Task[None], BuildRun] = {}
        self._wake = asyncio.Event()
        self._stopping = False
        self._swept_at = float("-inf")
        self._claims_fail = False

    def stop(self) -> None:
        """Claim no more builds; `run` returns soon after the grace time at the latest."""
        self._stopping = True
        self._wake.set()

    async def run(self) -> None:
        """Work until `stop`; then give running builds the grace time, and release the rest."""
        listening = asyncio.create_task(self._builds.hear(self._on_news), name="build news")
        try:
            while not self._stopping:
                self._wake.clear()
                more = await self._claim()
                if more and len(self._runs) < self._concurrency:
                    continue
                try:
                    # Jitter: workers should not poll in step.
                    async with asyncio.timeout(_POLL_EVERY_S * random.uniform(0.8, 1.2)):
                        await self._wake.wait()
                except TimeoutError:
                    pass
                if listening.done():
                    listening.result()
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
            await self._give_back()

    async def _claim(self) -> bool:
        """Claim builds for the free slots; return whether more may be queued."""
        free = self._concurrency - len(self._runs)
        if free == 0:
            return False
        try:
            claimed_at = time.monotonic()
            builds = await self._builds.claim(self.worker_id, free, lease_s=self._times.lease_s)
            if time.monotonic() >= self._swept_at + _SWEEP_EVERY_S:
                self._swept_at = time.monotonic()
                await self._builds.fail_abandoned()
        except StreamsError as error:
            if not self._claims_fail:
                _log.warning("builds not claimed", extra={"error": str(error)})
            self._claims_fail = True
            return False
        self._claims_fail = False
        for build in builds:
            run = BuildRun(build, self._builds, self._runner, self._times, claimed_at=claimed_at)
            task = asyncio.create_task(run.run(), name=f"build {build.id}")
            self._runs[task] = run
            task.add_done_callback(self._ended)
        return len(builds) == free

    def _ended(self, task: asyncio.Task[None]) -> None:
        run = self._runs.pop(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # Its lease expires, and another attempt follows.
            _log.error("build run failed", extra={"build_id": run.build.id}, exc_info=error)
        self._wake.set()

    def _on_news(self, news: News, build_id: str) -> None:
        if news == "queued":
            self._wake.set()
            return
        for run in self._runs.values():
            if run.build.id == build_id:
                run.stop("cancelled")

    async def _give_back(self) -> None:
        if self._runs:
            await asyncio.wait(list(self._runs), timeout=self._grace_s)
        for run in self._runs.values():
            run.stop("shutdown")
        if self._runs:
            _, left = await asyncio.wait(list(self._runs), timeout=_STOP_TIMEOUT_S)
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)


def _runner_from(settings: Settings, environ: Mapping[str, str], keepers: Keepers) -> Runner:
    """Return the runner of the operator's command, else the built-in example."""
    if not settings.build_command:
        return Example()
    return Command(settings.build_command, of_a_build(environ, settings.build_env), keepers)


async def run(settings: Settings, *, concurrency: int, grace_s: float) -> None:
    """Work until SIGTERM or SIGINT. Orphans of builds become children of this process (Linux).

    Raises:
        StreamsError: a background part of the event log ended by itself.
    """
    if sys.platform == "linux":
        adopt_orphans()
    keepers = Keepers(
        BuildLimits(
            memory_bytes=settings.build_memory_bytes,
            file_bytes=settings.build_file_bytes,
            processes=settings.build_processes,
            open_files=settings.build_open_files,
        ),
        new_privileges=settings.build_new_privileges,
        adopts=True,
    )
    times = BuildTimes(lease_s=settings.build_lease_s, timeout_s=settings.build_timeout_s)
    async with EventLog.open(
        settings.database_url,
        settings.redis_url,
        config=EventLogConfig(database_pool_size=settings.database_pool_size),
    ) as log:
        runner = _runner_from(settings, os.environ, keepers)
        worker = Worker(log, runner, times, concurrency=concurrency, grace_s=grace_s)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, worker.stop)
        working = asyncio.create_task(worker.run(), name="worker")
        while not working.done():
            await asyncio.wait([working], timeout=_POLL_EVERY_S)
            if log.failed_part is not None:
                worker.stop()
        await keepers.close()
        working.result()
        if log.failed_part is not None:
            raise StreamsError(f"{log.failed_part} ended")
