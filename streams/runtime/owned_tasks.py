"""Ending tasks that wait for servers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

_TRIES = 8
_TRY_S = 0.5


async def end(tasks: Iterable[asyncio.Task[Any]]) -> list[str]:
    """Cancel tasks until they have ended; return the names of those that do not in some seconds.

    Once is not enough. redis-py loses a cancellation that comes while it connects (seen with 8.1).
    asyncpg tells the server first, and waits until it has heard: for ever, when it hangs.
    """
    running = {task for task in tasks if not task.done()}
    for _ in range(_TRIES):
        if not running:
            break
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=_TRY_S)
    return [task.get_name() for task in running]
