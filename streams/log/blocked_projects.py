"""Appends to projects whose row another session holds locked: they wait here, and nobody else does.

One commit at a time, of the projects that are free again. Until it is, a project's appends all
come here, so that their order stays. When they have waited long enough is the owner's matter.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Container, Iterable, Sequence

from streams.log.append_batch import Batch, Waiting

_LOOK_EVERY_S = 0.1

Commit = Callable[[list[Waiting]], Awaitable[list[Waiting]]]
"""Commits appends and returns those that met a locked row, in order."""
Locked = Callable[[Sequence[str]], Awaitable[Container[str]]]
"""Tells which of the projects are locked."""


class BlockedProjects:
    """The appends that wait for other sessions' locks."""

    def __init__(self, commit: Commit, locked: Locked) -> None:
        self._commit = commit
        self._locked = locked
        self._queues: dict[str, deque[Waiting]] = {}
        self._wake = asyncio.Event()

    def __contains__(self, project_id: str) -> bool:
        return project_id in self._queues

    def add(self, waiting: Waiting) -> None:
        """Let an append wait until its project is free."""
        self._queues.setdefault(waiting.unit.project_id, deque()).append(waiting)
        self._wake.set()

    def drop(self, over: set[Waiting]) -> None:
        """Forget appends whose time is over."""
        for project_id, queue in self._queues.items():
            self._queues[project_id] = deque(each for each in queue if each not in over)

    async def run(self) -> None:
        """Commit what is free again, for ever."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queues:
                await asyncio.sleep(_LOOK_EVERY_S)
                await self._look()

    async def _look(self) -> None:
        projects = list(self._queues)
        locked = await self._locked(projects)
        free = [project_id for project_id in projects if project_id not in locked]
        if free and await self._commit_some(free) and len(free) > 1:
            # One of them must not keep the others.
            for project_id in free:
                await self._commit_some([project_id])
        for project_id in free:
            if not self._queues[project_id]:
                del self._queues[project_id]

    async def _commit_some(self, projects: Iterable[str]) -> bool:
        """Commit the oldest appends of the projects; tell whether a locked row was met."""
        batch = Batch()
        for project_id in projects:
            queue = self._queues[project_id]
            while queue and batch.add(queue[0]):
                queue.popleft()
        if not batch.appends:
            return False
        blocked = await self._commit(batch.appends)
        for waiting in reversed(blocked):
            self._queues[waiting.unit.project_id].appendleft(waiting)
        return bool(blocked)
