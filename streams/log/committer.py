"""One committer: one commit at a time of everything that waits, each append until its deadline.

A project whose row another session holds is set aside (`blocked_projects.py`): its neighbours in
the same commit go on without it.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Callable, Sequence

from streams.log.append_batch import MAX_BATCH, Batch, Waiting
from streams.log.blocked_projects import BlockedProjects
from streams.log.log import Appended, Log, Unit
from streams.model.errors import Contended, LogUnavailable, Overloaded, StreamsError, Unavailable
from streams.model.events import encode
from streams.runtime.observer import Observer

_log = logging.getLogger(__name__)

# A full commit, and what waits for the next ones.
_MAX_HELD_MESSAGES = MAX_BATCH + 5000
# How long after a commit of several the next one may wait for as many.
GATHER_S = 0.008

Publish = Callable[[str, int, Sequence[bytes]], None]


class Committer:
    """Commits the appends of its projects. `run` must run, else whoever appends is refused."""

    def __init__(
        self,
        log: Log,
        publish: Publish,
        observer: Observer,
        *,
        timeout_s: float,
        max_bytes: int,
        before_publish: Callable[[int], None] | None,
    ) -> None:
        self._log = log
        self._publish = publish
        self._observer = observer
        self._timeout_s = timeout_s
        self._max_bytes = max_bytes
        self._before_publish = before_publish
        self._waiting: deque[Waiting] = deque()
        self._blocked = BlockedProjects(self._commit, self._locked)
        # All that somebody waits for: queued, set aside, or being committed.
        self._held: set[Waiting] = set()
        self._held_messages = 0
        self._held_bytes = 0
        # One timer for all of them, at the earliest deadline or before it.
        self._timer: asyncio.TimerHandle | None = None
        self._timer_s = math.inf
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._committing = 0
        self._commits = 0
        self._has_ended = False
        # Appends in the last commit, when it ended, and who waits for as many again.
        self._last_size = 0
        self._last_end_s = float("-inf")
        self._gathered: asyncio.Event | None = None
        self._loop = asyncio.get_running_loop()

    def submit(self, unit: Unit, deadline_s: float | None) -> asyncio.Future[list[Appended]]:
        """Queue a unit for the next commit; the future has its outcome."""
        if self._has_ended:
            raise LogUnavailable("nothing is committed any more")
        if deadline_s is None:
            deadline_s = self._loop.time() + self._timeout_s
        waiting = Waiting(unit, self._loop.create_future(), deadline_s)
        if (
            self._held_messages + len(unit.messages) > _MAX_HELD_MESSAGES
            or self._held_bytes + waiting.size_bytes > self._max_bytes
        ):
            raise Overloaded("too many appends are waiting")
        self._held.add(waiting)
        self._held_messages += len(unit.messages)
        self._held_bytes += waiting.size_bytes
        self._waiting.append(waiting)
        if deadline_s < self._timer_s:
            self._expire_at(deadline_s)
        self._idle.clear()
        self._wake.set()
        if self._gathered is not None and len(self._waiting) >= self._last_size:
            self._gathered.set()
        return waiting.future

    async def drained(self) -> None:
        """Wait until all that was submitted is committed, or has failed."""
        await self._idle.wait()

    async def run(self) -> None:
        """Commit for ever. At the end nobody is left waiting."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._run())
                group.create_task(self._blocked.run())
        finally:
            self._has_ended = True
            if self._timer is not None:
                self._timer.cancel()
            for waiting in list(self._held):
                self._fail(waiting, LogUnavailable("nothing is committed any more"))
            self._idle.set()

    async def _run(self) -> None:
        while True:
            if not self._waiting:
                await self._wake.wait()
            self._wake.clear()
            await self._gather()
            batch = self._take()
            if batch:
                blocked = await self._commit(batch)
                if blocked:
                    await self._set_aside(blocked)
                self._last_size, self._last_end_s = len(batch), self._loop.time()

    async def _gather(self) -> None:
        """Wait until as many wait as were in the last commit, or for `GATHER_S` after its end."""
        until_s = self._last_end_s + GATHER_S
        if self._last_size < 2 or len(self._waiting) >= self._last_size:
            return
        if self._loop.time() >= until_s:
            return
        self._gathered = gathered = asyncio.Event()
        timer = self._loop.call_at(until_s, gathered.set)
        try:
            await gathered.wait()
        finally:
            timer.cancel()
            self._gathered = None

    def _take(self) -> list[Waiting]:
        """Take what fits in one commit; an id that is in it already waits for the next one."""
        batch = Batch()
        while self._waiting:
            waiting = self._waiting[0]
            if waiting.unit.project_id in self._blocked:
                self._blocked.add(waiting)
            elif not batch.add(waiting):
                break
            self._waiting.popleft()
        return batch.appends

    async def _commit(self, batch: list[Waiting]) -> list[Waiting]:
        """Commit; return what met a locked row and is still waited for, in order."""
        self._committing += 1
        try:
            results = await self._log.append([waiting.unit for waiting in batch])
        except Contended:
            return [waiting for waiting in batch if waiting in self._held]
        except Unavailable as error:
            for waiting in batch:
                self._fail(waiting, error)
            return []
        except StreamsError as error:
            if len(batch) > 1:
                return await self._commit_each(batch)
            _log.warning("append refused by the log", extra={"error": str(error)})
            self._fail(batch[0], error)
            return []
        finally:
            self._committing -= 1
            self._look_idle()
        self._commits += 1
        if self._before_publish is not None:
            self._before_publish(self._commits)
        self._settle(batch, results)
        return []

    async def _commit_each(self, batch: list[Waiting]) -> list[Waiting]:
        """Commit one by one: a unit that Postgres cannot take must not fail the others."""
        blocked: list[Waiting] = []
        projects: set[str] = set()
        for waiting in batch:
            if waiting.unit.project_id in projects or await self._commit([waiting]):
                projects.add(waiting.unit.project_id)
                blocked.append(waiting)
        return blocked

    async def _set_aside(self, met: list[Waiting]) -> None:
        """Commit again without the projects that are locked; those wait by themselves."""
        locked = await self._locked([waiting.unit.project_id for waiting in met])
        free = [waiting for waiting in met if waiting.unit.project_id not in locked]
        again = set(await self._commit(free)) if free else set()
        for waiting in met:
            blocked = waiting in again or waiting.unit.project_id in locked
            if blocked and waiting in self._held:
                self._blocked.add(waiting)

    async def _locked(self, project_ids: Sequence[str]) -> set[str]:
        try:
            return await self._log.locked(project_ids)
        except StreamsError:
            # Nobody knows: they are looked at again soon.
            return set(project_ids)

    def _settle(self, batch: list[Waiting], results: list[list[Appended] | StreamsError]) -> None:
        fresh: dict[str, list[tuple[int, bytes]]] = {}
        count = 0
        for waiting, result in zip(batch, results, strict=True):
            if isinstance(result, StreamsError):
                self._fail(waiting, result)
                continue
            for appended in result:
                if not appended.duplicate:
                    message = appended.message
                    count += 1
                    fresh.setdefault(message.project_id, []).append((message.seq, encode(message)))
            if not waiting.future.done():
                waiting.future.set_result(result)
            self._release(waiting)
        if count:
            self._observer.committed(count)
        for project_id, messages in fresh.items():
            # One transaction numbers a project's messages without a hole, in order.
            self._publish(project_id, messages[0][0], [data for _, data in messages])

    def _fail(self, waiting: Waiting, error: StreamsError) -> None:
        waiting.fail(error)
        self._release(waiting)

    def _release(self, waiting: Waiting) -> None:
        if waiting in self._held:
            self._held.remove(waiting)
            self._held_messages -= len(waiting.unit.messages)
            self._held_bytes -= waiting.size_bytes
            self._look_idle()

    def _look_idle(self) -> None:
        if not self._held and not self._committing:
            self._idle.set()

    # Deadlines.

    def _expire_at(self, deadline_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_s = deadline_s
        self._timer = self._loop.call_at(deadline_s, self._expire)

    def _expire(self) -> None:
        """Fail those whose time is over. What is being committed may be committed all the same."""
        now_s = self._loop.time()
        over = {waiting for waiting in self._held if waiting.deadline_s <= now_s}
        if over:
            self._waiting = deque(waiting for waiting in self._waiting if waiting not in over)
            self._blocked.drop(over)
        for waiting in over:
            self._fail(waiting, LogUnavailable("no answer from Postgres in time"))
        self._timer, self._timer_s = None, math.inf
        if self._held:
            self._expire_at(min(waiting.deadline_s for waiting in self._held))
