"""A follower of one project that records what the library's `follow` yields."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from streams.eventlog import EventLog
from streams.model.events import Event
from tests.support.waiting import wait_until


class Follower:
    """The events received so far; `task` fails when `follow` does."""

    def __init__(self, log: EventLog, project_id: str, after: int | None) -> None:
        self.events: list[Event] = []
        self._log = log
        self._project_id = project_id
        self._after = after
        self.task = asyncio.create_task(self._run(), name=f"follow {project_id}")

    @property
    def seqs(self) -> list[int]:
        """The seqs of the messages, in the order of their arrival."""
        return [event.id.seq for event in self.events if event.seq is not None]

    async def wait_seq(self, seq: int, *, timeout_s: float = 10.0) -> None:
        """Wait until message `seq` is received."""

        def received() -> bool:
            if self.task.done():
                self.task.result()
            return bool(self.seqs) and self.seqs[-1] >= seq

        await wait_until(
            received, timeout_s=timeout_s, what=f"message {seq} (has {self.seqs[-3:]})"
        )

    async def _run(self) -> None:
        async for event in self._log.follow(self._project_id, after=self._after):
            self.events.append(event)


@contextlib.asynccontextmanager
async def following(
    log: EventLog, project_id: str, *, after: int | None = 0
) -> AsyncIterator[Follower]:
    """Follow a project inside the block, which begins once its tail exists."""
    follower = Follower(log, project_id, after)
    await wait_until(
        lambda: follower.task.done() or any(t.project_id == project_id for t in log.tails.all()),
        what="the tail",
    )
    # After one more turn of the loop the reader is at the end of the tail.
    await asyncio.sleep(0)
    try:
        yield follower
    finally:
        follower.task.cancel()
        await asyncio.gather(follower.task, return_exceptions=True)
