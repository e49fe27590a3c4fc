"""One attempt at a build by this worker: run, report, renew the lease, end.

Every attempt ends in one of four ways: the build has ended, this worker has released the lease,
another worker holds the lease, or the lease expires and another worker claims the build.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Literal

import msgspec

from service.worker.build_command import Outcome, Progress, Runner
from streams.builds.build_errors import LeaseLost
from streams.builds.build_values import MAX_RESULT_BYTES, Ending
from streams.builds.lifecycle import Builds
from streams.model.build import Build
from streams.model.errors import StreamsError, Unavailable
from streams.runtime.backoff import Backoff

_log = logging.getLogger(__name__)

# Minimum time between two writes of a build's progress, to bound the load of a chatty build.
REPORT_EVERY_S = 0.4
_RETRY_FIRST_S = 0.25
_RETRY_MOST_S = 1.0

Stop = Literal["cancelled", "timed out", "lease lost", "shutdown"]


class BuildTimes(msgspec.Struct, frozen=True):
    """Length of a lease, and the longest time that a build may run."""

    lease_s: float
    timeout_s: float


class BuildRun:
    """One attempt. `run` covers it from start to end."""

    def __init__(
        self,
        build: Build,
        builds: Builds,
        runner: Runner,
        times: BuildTimes,
        *,
        claimed_at: float,
    ) -> None:
        """`claimed_at` is the monotonic time just before the claim was sent, in seconds."""
        self.build = build
        self._builds = builds
        self._runner = runner
        self._times = times
        self._unreported: Progress | None = None
        self._has_progress = asyncio.Event()
        self._stop: Stop | None = None
        self._running: asyncio.Task[Outcome] | None = None
        # By our own clock, counted from before each query: never later than in the database.
        self._leased_until = claimed_at + times.lease_s

    def stop(self, why: Stop) -> None:
        """Kill the build. Only the first reason is kept."""
        if self._stop is None:
            self._stop = why
            if self._running is not None:
                self._running.cancel()

    async def run(self) -> None:
        """Run the build to its end."""
        self._running = asyncio.create_task(
            self._runner.run(self.build, self._on_progress), name="build command"
        )
        if self._stop is not None:
            self._running.cancel()
        background = [
            asyncio.create_task(self._report(), name="build progress"),
            asyncio.create_task(self._keep_lease(), name="build lease"),
        ]
        try:
            outcome = await self._outcome(self._running)
        finally:
            self._running.cancel()
            for task in background:
                task.cancel()
            await asyncio.gather(self._running, *background, return_exceptions=True)
        try:
            if outcome is not None and self._unreported is not None:
                # The last progress, not written yet because of `REPORT_EVERY_S`.
                await self._write(self._unreported)
            await self._end(outcome)
        except LeaseLost:
            _log.warning("build lost", extra=self._fields)

    @property
    def _fields(self) -> dict[str, object]:
        return {
            "project_id": self.build.project_id,
            "build_id": self.build.id,
            "attempt": self.build.attempt,
        }

    async def _outcome(self, running: asyncio.Task[Outcome]) -> Outcome | None:
        try:
            async with asyncio.timeout(self._times.timeout_s):
                await asyncio.wait([running])
        except TimeoutError:
            self.stop("timed out")
            await asyncio.wait([running])
        if self._stop is not None:
            return None
        if running.cancelled():
            raise asyncio.CancelledError
        error = running.exception()
        if error is not None:
            _log.error("build runner failed", extra=self._fields, exc_info=error)
            return Outcome(False, "the build could not be run")
        return running.result()

    async def _end(self, outcome: Outcome | None) -> None:
        if outcome is None:
            if self._stop == "lease lost":
                raise LeaseLost("the lease ran out or is another's")
            if self._stop == "shutdown":
                await self._until_available(lambda: self._builds.release(self.build))
                return
            outcome = Outcome(False, self._stop)
        result = outcome.result
        if result is not None and len(result) > MAX_RESULT_BYTES:
            outcome = Outcome(False, f"the result is larger than {MAX_RESULT_BYTES} bytes")
            result = None
        status: Ending = "completed" if outcome.succeeded else "failed"
        await self._until_available(
            lambda: self._builds.finish(self.build, status, message=outcome.message, result=result)
        )

    async def _until_available(self, step: Callable[[], Awaitable[object]]) -> None:
        backoff = Backoff(first_s=_RETRY_FIRST_S, most_s=_RETRY_MOST_S)
        while True:
            try:
                await step()
            except Unavailable:
                # No other worker can claim the build while Postgres is away.
                await asyncio.sleep(backoff.next_s())
            else:
                return

    def _on_progress(self, progress: Progress) -> None:
        before = self._unreported or Progress()
        self._unreported = Progress(
            before.progress if progress.progress is None else progress.progress,
            progress.step or before.step,
            progress.message or before.message,
        )
        self._has_progress.set()

    async def _report(self) -> None:
        while True:
            await self._has_progress.wait()
            self._has_progress.clear()
            progress, self._unreported = self._unreported, None
            if progress is None:
                continue
            try:
                await self._write(progress)
            except LeaseLost:
                self.stop("lease lost")
                return
            await asyncio.sleep(REPORT_EVERY_S)

    async def _write(self, progress: Progress) -> None:
        sent_at = time.monotonic()
        try:
            await self._builds.report(
                self.build,
                progress=progress.progress,
                step=progress.step,
                message=progress.message,
                lease_s=self._times.lease_s,
            )
        except Unavailable:
            # Not retried: newer progress follows, and `_keep_lease` renews the lease.
            _log.debug("progress not written", extra=self._fields)
        else:
            self._leased_until = sent_at + self._times.lease_s

    async def _keep_lease(self) -> None:
        pause_s = max(self._leased_until - time.monotonic(), 0.0) / 3
        while True:
            await asyncio.sleep(pause_s)
            sent_at = time.monotonic()
            left_s = self._leased_until - sent_at
            try:
                async with asyncio.timeout(max(left_s, 0.0)):
                    may_continue = await self._builds.renew(self.build, lease_s=self._times.lease_s)
            except LeaseLost:
                self.stop("lease lost")
                return
            except (StreamsError, TimeoutError):
                if time.monotonic() >= self._leased_until:
                    # Another worker may have claimed it; the lease prevents concurrent attempts.
                    self.stop("lease lost")
                    return
                pause_s = min(_RETRY_FIRST_S, self._times.lease_s / 10)
                continue
            self._leased_until = sent_at + self._times.lease_s
            pause_s = self._times.lease_s / 3
            if not may_continue:
                self.stop("cancelled")
                return
