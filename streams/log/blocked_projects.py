"""Appends to projects whose row another session holds locked: they wait apart from all others.

While a project is blocked all its appends come here, which keeps their order. Free projects are
committed from here, one commit at a time. Deadlines are in `held_appends.py`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Container, Iterable, Sequence

from streams.log.append_batch import Batch, PendingAppend

_POLL_S = 0.1

Commit = Callable[[list[PendingAppend]], Awaitable[list[PendingAppend]]]
"""Commits appends; returns them, in order, when a locked row prevented it."""
Locked = Callable[[Sequence[str]], Awaitable[Container[str]]]
"""Returns the locked projects among those given."""


class BlockedProjects:
    """A queue of appends for each blocked project."""

    def __init__(self, commit: Commit, locked: Locked) -> None:
        self._commit = commit
        self._locked = locked
        self._queues: dict[str, deque[PendingAppend]] = {}
        self._wake = asyncio.Event()

    def __contains__(self, project_id: str) -> bool:
        return project_id in self._queues

    def add(self, append: PendingAppend) -> None:
        """Queue an append until its project is free."""
        self._queues.setdefault(append.unit.project_id, deque()).append(append)
        self._wake.set()

    def drop(self, expired: set[PendingAppend]) -> None:
        """Remove appends whose deadline has passed."""
        for project_id, queue in self._queues.items():
            self._queues[project_id] = deque(each for each in queue if each not in expired)

    async def run(self) -> None:
        """Commit the appends of projects that are free again. Runs until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queues:
                await asyncio.sleep(_POLL_S)
                await self._poll()

    async def _poll(self) -> None:
        projects = list(self._queues)
        locked = await self._locked(projects)
        free = [project_id for project_id in projects if project_id not in locked]
        if free and await self._commit_some(free) and len(free) > 1:
            # One of them is locked again. Committed one by one, the others do not wait for it.
            for project_id in free:
                await self._commit_some([project_id])
        for project_id in free:
            if not self._queues[project_id]:
                del self._queues[project_id]

    async def _commit_some(self, projects: Iterable[str]) -> bool:
        """Commit the oldest appends of the projects; tell whether a locked row prevented it."""
        batch = Batch()
        for project_id in projects:
            queue = self._queues[project_id]
            while queue and batch.add(queue[0]):
                queue.popleft()
        if not batch.appends:
            return False
        blocked = await self._commit(batch.appends)
        for append in reversed(blocked):
            self._queues[append.unit.project_id].appendleft(append)
        return bool(blocked)
