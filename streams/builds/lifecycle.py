"""Builds for users of the library: each step is committed, then published to the readers.

log.builds.ask(...)                             a user requests a build
build, = await log.builds.claim("worker-1")      a worker claims it,
await log.builds.report(build, progress=50)      reports its progress
await log.builds.finish(build, "completed")      and ends it

The statements are behind `build_rows.py`, publishing is in `statuses.py`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

from streams.builds.build_news import BuildNews, News
from streams.builds.build_rows import BuildRows
from streams.builds.build_values import Asked, Counts, Ending, Finished
from streams.builds.statuses import Statuses
from streams.model.build import LEASE_S, Build
from streams.model.errors import Unavailable
from streams.model.events import BuildState, Message, NewMessage
from streams.runtime.health import Health
from streams.runtime.running_steps import RunningSteps


class Builds:
    """The builds of all projects.

    Every method may raise `LogUnavailable`: the outcome is then unknown, and a repeat is harmless.
    A step that has begun is completed even when its caller is cancelled. `committed` is called with
    each message that was appended here.
    """

    def __init__(
        self,
        rows: BuildRows,
        statuses: Statuses,
        news: BuildNews,
        health: Health,
        committed: Callable[[Message], None],
    ) -> None:
        self._rows = rows
        self._statuses = statuses
        self._news = news
        self._health = health
        self._committed = committed
        self._steps = RunningSteps()

    async def ask(self, project_id: str, message: NewMessage) -> Asked:
        """Append a user's message and queue the build it requests, in one transaction.

        With a `client_msg_id` a repeat adds nothing and returns the first result.

        Raises:
            InvalidInput, PayloadTooLarge, IdempotencyMismatch, ProjectNotFound, TooManyBuilds:
                nothing written.
        """
        return await self._steps.run(self._ask(project_id, message))

    async def _ask(self, project_id: str, message: NewMessage) -> Asked:
        asked = await self._rows.requests.ask(project_id, message)
        if not asked.appended.duplicate:
            self._committed(asked.appended.message)
            self._statuses.submit(asked.build)
            await self._announce_to_workers("queued", asked.build.id)
        return asked

    async def cancel(self, project_id: str, build_id: str) -> Build:
        """End a build: at once if no worker has it, else its worker is asked to.

        Raises:
            BuildNotFound, BuildEnded.
        """
        build = await self._steps.run(self._finish(self._rows.ends.cancel(project_id, build_id)))
        if not build.ended:
            await self._announce_to_workers("cancelled", build.id)
        return build

    async def claim(
        self, worker_id: str, count: int = 1, *, lease_s: float = LEASE_S
    ) -> list[Build]:
        """Claim up to `count` builds.

        Builds whose lease has expired come first; then, one by one, the longest waiting build of
        the project that has the fewest running. No two workers may use one `worker_id`. The lease
        must be renewed before it expires.
        """
        builds = await self._rows.leases.claim(worker_id, count, lease_s=lease_s)
        for build in builds:
            self._statuses.submit(build)
        return builds

    async def claim_one(
        self, project_id: str, build_id: str, worker_id: str, *, lease_s: float = LEASE_S
    ) -> Build:
        """Claim this build. Raises `BuildNotFound`, `BuildEnded`, `BuildHeld`."""
        build = await self._rows.leases.claim_one(project_id, build_id, worker_id, lease_s=lease_s)
        self._statuses.submit(build)
        return build

    async def renew(self, build: Build, *, lease_s: float = LEASE_S) -> bool:
        """Prolong the lease; return whether the build goes on (False: it was cancelled).

        Raises `LeaseLost`.
        """
        return await self._rows.leases.renew(build, lease_s=lease_s)

    async def report(
        self,
        build: Build,
        *,
        progress: float | None = None,
        step: str | None = None,
        message: str | None = None,
        lease_s: float = LEASE_S,
    ) -> Build:
        """Record progress (0 to 100) and prolong the lease; None leaves a value as it is.

        Readers get the newest progress a few times a second.

        Raises `LeaseLost`.
        """
        reported = await self._rows.leases.report(
            build, progress=progress, step=step, message=message, lease_s=lease_s
        )
        self._statuses.submit(reported)
        return reported

    async def finish(
        self,
        build: Build,
        status: Ending,
        *,
        message: str | None = None,
        result: bytes | None = None,
    ) -> Build:
        """End a claimed build and append its message, in one transaction.

        `result` is JSON; it goes into the message's `response_data`.

        Raises:
            LeaseLost: the build is another's; nothing was written.
            InvalidInput: the result is too large.
        """
        return await self._steps.run(
            self._finish(self._rows.ends.finish(build, status, message=message, result=result))
        )

    async def release(self, build: Build) -> None:
        """Give the lease back: another worker may claim the build at once.

        It continues the same attempt: only a lease that expired counts as an attempt.
        """
        await self._rows.leases.release(build)
        await self._announce_to_workers("queued", build.id)

    async def fail_abandoned(self) -> int:
        """End builds that have no worker and cannot be claimed; return how many."""
        finished = await self._rows.ends.fail_abandoned()
        for each in finished:
            await self._publish(each)
        return len(finished)

    async def get(self, project_id: str, build_id: str) -> Build:
        """Return a build of a project. Raises `BuildNotFound`."""
        return await self._rows.reader.get(project_id, build_id)

    async def list(
        self, project_id: str, *, status: BuildState | None = None, limit: int = 50
    ) -> list[Build]:
        """Return a project's builds, newest first."""
        return await self._rows.reader.list(project_id, status=status, limit=limit)

    async def counts(self) -> Counts:
        """Count the builds."""
        return await self._rows.reader.counts()

    async def hear(self, heard: Callable[[News, str], None]) -> None:
        """Call `heard` with "queued" or "cancelled" and the build's id, until cancelled.

        It only saves time: nothing is heard while Redis is down.
        """
        await self._news.hear(heard)

    async def drained(self) -> None:
        """Wait until the steps in progress are completed."""
        await self._steps.drained()

    async def _finish(self, finishing: Coroutine[Any, Any, Finished]) -> Build:
        finished = await finishing
        await self._publish(finished)
        return finished.build

    async def _publish(self, finished: Finished) -> None:
        # The status first: a client that sees the message has seen how the build ended.
        if finished.build.ended:
            await self._statuses.publish(finished.build)
        if finished.message is not None:
            self._committed(finished.message)

    async def _announce_to_workers(self, news: News, build_id: str) -> None:
        if self._health.redis_up:
            # Without it they find the build by their own poll, a second later.
            with contextlib.suppress(Unavailable):
                await self._news.announce(news, build_id)
