"""Wait for a condition with a deadline; tests use this instead of sleeps."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable

_POLL_S = 0.01


async def wait_until(
    condition: Callable[[], bool] | Callable[[], Awaitable[bool]],
    *,
    timeout_s: float = 10.0,
    what: str = "the condition",
) -> None:
    """Return once `condition()` holds; raises a TimeoutError that names `what` otherwise."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        holds = condition()
        if inspect.isawaitable(holds):
            holds = await holds
        if holds:
            return
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"{what} did not come true within {timeout_s} s")
        await asyncio.sleep(_POLL_S)
