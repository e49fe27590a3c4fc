"""Steps that are completed even when their caller is cancelled, such as commit and publish."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class RunningSteps:
    """Runs each step in a task of its own and keeps the task until it is done."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    async def run(self, step: Coroutine[Any, Any, T]) -> T:
        """Run a step to its end and return its result; the caller may be cancelled meanwhile."""
        task = asyncio.create_task(step)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return await asyncio.shield(task)

    async def drained(self) -> None:
        """Wait until the steps in progress are completed."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            # Marks the exception as retrieved: the caller has it, unless it was cancelled.
            task.exception()
