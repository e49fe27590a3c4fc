"""A committer: runs one commit at a time, of all appends that are queued.

A project whose row another session holds locked is set aside (`blocked_projects.py`), so that the
other projects of the same commit do not wait for it. Bounds and deadlines of the appends are in
`held_appends.py`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence

from streams.log.append_batch import Batch, PendingAppend
from streams.log.blocked_projects import BlockedProjects
from streams.log.held_appends import HeldAppends
from streams.log.log import Appended, Log, Unit
from streams.model.errors import Contended, LogUnavailable, StreamsError, Unavailable
from streams.model.events import encode
from streams.runtime.observer import Observer

_log = logging.getLogger(__name__)

# How long after a commit of several appends the next commit may wait for as many.
GATHER_S = 0.008

Publish = Callable[[str, int, Sequence[bytes]], None]
"""Publishes consecutive new messages: the project, the first seq, and the data of each."""


class Committer:
    """Commits the appends of its projects while `run` runs."""

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
        self._before_publish = before_publish
        self._queue: deque[PendingAppend] = deque()
        self._blocked = BlockedProjects(self._commit, self._locked)
        self._held = HeldAppends(max_bytes=max_bytes, expired=self._expire)
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._committing = 0
        self._commits = 0
        self._has_ended = False
        # Appends in the last commit, when it ended, and the event that as many are queued again.
        self._last_size = 0
        self._last_end_s = float("-inf")
        self._gathered: asyncio.Event | None = None
        self._loop = asyncio.get_running_loop()

    def submit(self, unit: Unit, deadline_s: float | None) -> asyncio.Future[list[Appended]]:
        """Queue a unit for the next commit; the future gets its outcome.

        Raises `Overloaded` when too much is held, and `LogUnavailable` after the end of `run`.
        """
        if self._has_ended:
            raise LogUnavailable("nothing is committed any more")
        if deadline_s is None:
            deadline_s = self._loop.time() + self._timeout_s
        append = PendingAppend(unit, self._loop.create_future(), deadline_s)
        self._held.add(append)
        self._queue.append(append)
        self._idle.clear()
        self._wake.set()
        if self._gathered is not None and len(self._queue) >= self._last_size:
            self._gathered.set()
        return append.future

    async def drained(self) -> None:
        """Wait until every submitted append is committed or has failed."""
        await self._idle.wait()

    async def run(self) -> None:
        """Commit until cancelled. At the end all appends that are still held fail."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._run())
                group.create_task(self._blocked.run())
        finally:
            self._has_ended = True
            self._held.stop()
            for append in self._held:
                self._fail(append, LogUnavailable("nothing is committed any more"))
            self._idle.set()

    async def _run(self) -> None:
        while True:
            if not self._queue:
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
        """Wait for as many appends as the last commit had, at most `GATHER_S` after its end."""
        until_s = self._last_end_s + GATHER_S
        if self._last_size < 2 or len(self._queue) >= self._last_size:
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

    def _take(self) -> list[PendingAppend]:
        """Take the next batch off the queue; appends to blocked projects go to those."""
        batch = Batch()
        while self._queue:
            append = self._queue[0]
            if append.unit.project_id in self._blocked:
                self._blocked.add(append)
            elif not batch.add(append):
                break
            self._queue.popleft()
        return batch.appends

    async def _commit(self, batch: list[PendingAppend]) -> list[PendingAppend]:
        """Commit a batch. Return its held appends, in order, when a locked row prevented it."""
        self._committing += 1
        try:
            results = await self._log.append([append.unit for append in batch])
        except Contended:
            return [append for append in batch if append in self._held]
        except Unavailable as error:
            for append in batch:
                self._fail(append, error)
            return []
        except StreamsError as error:
            if len(batch) > 1:
                return await self._commit_each(batch)
            _log.warning("append refused by the log", extra={"error": str(error)})
            self._fail(batch[0], error)
            return []
        finally:
            self._committing -= 1
            self._update_idle()
        self._commits += 1
        if self._before_publish is not None:
            self._before_publish(self._commits)
        self._settle(batch, results)
        return []

    async def _commit_each(self, batch: list[PendingAppend]) -> list[PendingAppend]:
        """Commit one by one, so that a unit that Postgres refuses does not fail the others."""
        blocked: list[PendingAppend] = []
        projects: set[str] = set()
        for append in batch:
            if append.unit.project_id in projects or await self._commit([append]):
                projects.add(append.unit.project_id)
                blocked.append(append)
        return blocked

    async def _set_aside(self, blocked: list[PendingAppend]) -> None:
        """Set the locked projects of a batch aside and commit the batch's other appends."""
        locked = await self._locked([append.unit.project_id for append in blocked])
        free = [append for append in blocked if append.unit.project_id not in locked]
        still_blocked = set(await self._commit(free)) if free else set()
        for append in blocked:
            is_blocked = append in still_blocked or append.unit.project_id in locked
            if is_blocked and append in self._held:
                self._blocked.add(append)

    async def _locked(self, project_ids: Sequence[str]) -> set[str]:
        try:
            return await self._log.locked(project_ids)
        except StreamsError:
            # Unknown: all count as locked, and `BlockedProjects` asks again soon.
            return set(project_ids)

    def _settle(
        self, batch: list[PendingAppend], results: list[list[Appended] | StreamsError]
    ) -> None:
        """Give each append of a commit its result, and publish the new messages."""
        fresh: dict[str, list[tuple[int, bytes]]] = {}
        count = 0
        for append, result in zip(batch, results, strict=True):
            if isinstance(result, StreamsError):
                self._fail(append, result)
                continue
            for appended in result:
                if not appended.duplicate:
                    message = appended.message
                    count += 1
                    fresh.setdefault(message.project_id, []).append((message.seq, encode(message)))
            if not append.future.done():
                append.future.set_result(result)
            self._held.remove(append)
        self._update_idle()
        if count:
            self._observer.committed(count)
        for project_id, messages in fresh.items():
            # One transaction gives a project consecutive seqs, in order.
            self._publish(project_id, messages[0][0], [data for _, data in messages])

    def _expire(self, expired: set[PendingAppend]) -> None:
        """Fail appends at their deadline. A commit under way may still write them."""
        if expired:
            self._queue = deque(append for append in self._queue if append not in expired)
            self._blocked.drop(expired)
        for append in expired:
            self._fail(append, LogUnavailable("no answer from Postgres in time"))

    def _fail(self, append: PendingAppend, error: StreamsError) -> None:
        append.fail(error)
        self._held.remove(append)
        self._update_idle()

    def _update_idle(self) -> None:
        if not self._held and not self._committing:
            self._idle.set()
