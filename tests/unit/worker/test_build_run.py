"""One attempt at a build: how long this worker may believe that it holds the lease."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Any, cast

from service.worker.build_command import Outcome, Runner
from service.worker.build_run import BuildRun, BuildTimes
from streams.builds.lifecycle import Builds
from streams.model.build import Build, Change
from streams.model.errors import LogUnavailable

_NOW = datetime.now(UTC)
_LEASE_S = 60.0


class _UnreachableBuilds:
    """Postgres does not answer: nothing can be renewed."""

    async def renew(self, build: Build, *, lease_s: float) -> bool:
        raise LogUnavailable("away")


class _Endless(Runner):
    """A command that runs until it is killed."""

    def __init__(self) -> None:
        self.killed = False

    async def run(self, build: Build, on_progress: Any) -> Outcome:
        try:
            await asyncio.Event().wait()
        finally:
            self.killed = True
        raise AssertionError("unreachable")


def _build() -> Build:
    return Build(
        id="b", project_id="p", version_id="v", user_id="u", message_seq=1, message_id="m",
        request="", metadata=None, status="in_progress", attempt=1, progress=None, step=None,
        message=None, worker_id="w", cancelled=False, result=None, end_seq=None, revision=1,
        changes=(Change(1, "in_progress", 1, 0),), created_at=_NOW, updated_at=_NOW,
        started_at=_NOW, ended_at=None,
    )  # fmt: skip


async def test_a_claim_that_took_as_long_as_the_lease_is_not_carried_out() -> None:
    """The lease counts from before the claim was sent: another worker may have claimed it."""
    runner = _Endless()
    run = BuildRun(
        _build(),
        cast("Builds", _UnreachableBuilds()),
        runner,
        BuildTimes(lease_s=_LEASE_S, timeout_s=600.0),
        claimed_at=time.monotonic() - _LEASE_S,
    )
    await asyncio.wait_for(run.run(), timeout=10)
    assert runner.killed
