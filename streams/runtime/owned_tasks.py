"""Ends tasks that may not end at the first cancellation."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

_ATTEMPTS = 8
_ATTEMPT_S = 0.5


async def end(tasks: Iterable[asyncio.Task[Any]]) -> list[str]:
    """Cancel tasks until they have ended; return the names of those still running after 4 s.

    One cancellation is not enough. redis-py 8.1 loses one that arrives while it connects. asyncpg
    asks the server to cancel and waits for its answer, without limit when the server hangs.
    """
    running = {task for task in tasks if not task.done()}
    for _ in range(_ATTEMPTS):
        if not running:
            break
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=_ATTEMPT_S)
    return [task.get_name() for task in running]
