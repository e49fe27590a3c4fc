"""Ending tasks that lose a cancellation."""

from __future__ import annotations

import asyncio

from streams.runtime.owned_tasks import end


async def _lose_cancellations(lost: int) -> None:
    for _ in range(lost):
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            continue
    await asyncio.Event().wait()


async def test_a_task_that_loses_a_cancellation_is_cancelled_again() -> None:
    """docs/protocol.md §6, shutdown: a task that continues would keep the process from exiting."""
    tasks = [
        asyncio.create_task(_lose_cancellations(lost), name=f"loses {lost}") for lost in (0, 1, 2)
    ]
    await asyncio.sleep(0)
    assert await end(tasks) == []
    assert all(task.cancelled() for task in tasks)


async def test_tasks_that_have_ended_are_ignored() -> None:
    """Their results and exceptions stay with their owners."""

    async def fail() -> None:
        raise ValueError

    task = asyncio.create_task(fail())
    await asyncio.wait([task])
    assert await end([task]) == []
    assert isinstance(task.exception(), ValueError)
    assert await end([]) == []
