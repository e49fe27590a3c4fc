"""Tasks that run as long as the service does. If one ends by itself, it ends the process.

A restart is better than a process that is half alive: without the streams' pulse, for example, a
service would look healthy and send nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from typing import Any

from streams.runtime.owned_tasks import end

_log = logging.getLogger(__name__)


@contextlib.asynccontextmanager
async def running(
    tasks: Mapping[str, Coroutine[Any, Any, None]], ended: Callable[[str], None]
) -> AsyncIterator[None]:
    """Run the named tasks for the length of an `async with`, then cancel them.

    If one ends by itself, `ended` is called with its name and the process gets SIGTERM.
    """

    def on_done(task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            _log.critical(
                "a task of the service ended",
                extra={"task": task.get_name()},
                exc_info=task.exception(),
            )
            ended(task.get_name())
            os.kill(os.getpid(), signal.SIGTERM)

    started = []
    for name, work in tasks.items():
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(on_done)
        started.append(task)
    try:
        yield
    finally:
        await end(started)
