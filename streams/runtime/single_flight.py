"""Equal requests that share one fetch, in a task that no requester's cancellation can end.

It knows nothing of what is fetched, and keeps no result once the fetch is done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class SingleFlight(Generic[K, T]):
    """At most one fetch per key is in progress; requests that come meanwhile get its outcome."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._tasks: dict[K, asyncio.Task[T]] = {}

    async def run(self, key: K, fetch: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return the outcome of the fetch in progress for `key`; start `fetch` if there is none.

        A fetch that was in progress may have read its data before this call. When the caller is
        cancelled the fetch goes on. Raises what the fetch raises, to every requester.
        """
        task = self._tasks.get(key)
        if task is None:
            task = asyncio.create_task(fetch(), name=self._name)
            self._tasks[key] = task
            task.add_done_callback(lambda done: self._done(key, done))
        return await asyncio.shield(task)

    def _done(self, key: K, task: asyncio.Task[T]) -> None:
        del self._tasks[key]
        if not task.cancelled():
            # Mark the exception as retrieved: every requester may have been cancelled.
            task.exception()

    def tasks(self) -> list[asyncio.Task[T]]:
        """Return the fetches in progress, for the owner to end."""
        return list(self._tasks.values())
