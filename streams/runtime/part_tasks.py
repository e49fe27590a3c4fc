"""The tasks of an event log's parts: started together, watched, ended together.

A part runs until it is cancelled. A part that ends by itself has a bug, and its silence would be
an outage that nobody notices: so the end is logged and reported, and the process must restart.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from streams.runtime.owned_tasks import end

_log = logging.getLogger(__name__)


class PartTasks:
    """Owns one task per part and notices when one ends that should not."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []
        self._failed: str | None = None
        self._has_failed = asyncio.Event()
        self._may_end = False

    def start(self, name: str, run: Coroutine[Any, Any, None]) -> None:
        """Run a part in a task of its own."""
        task = asyncio.create_task(run, name=name)
        task.add_done_callback(self._ended)
        self._tasks.append(task)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not self._may_end and not task.cancelled():
            self._failed = task.get_name()
            self._has_failed.set()
            _log.critical(
                "a part of the event log ended",
                extra={"part": task.get_name()},
                exc_info=task.exception(),
            )

    @property
    def failed_part(self) -> str | None:
        """The name of a part that ended though it should not have; none while all run."""
        return self._failed

    @property
    def running(self) -> list[str]:
        """The names of the parts that run."""
        return [task.get_name() for task in self._tasks if not task.done()]

    async def failed(self) -> None:
        """Return when a part has ended though it should not have."""
        await self._has_failed.wait()

    def expect_end(self) -> None:
        """From now on the end of a part is not a failure."""
        self._may_end = True

    async def end(self) -> None:
        """Cancel all parts and wait until they have ended."""
        self.expect_end()
        running = await end(self._tasks)
        if running:
            _log.error("parts do not end", extra={"parts": running})
