"""Ending tasks that do not end at the first word."""

from __future__ import annotations

import asyncio

from streams.runtime.owned_tasks import end


async def _stubborn(lost: int) -> None:
    for _ in range(lost):
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            continue
    await asyncio.Event().wait()


async def test_a_task_that_loses_a_cancellation_is_told_again() -> None:
    """§6, shutdown: a reader that went on for ever would hang the end of the process."""
    tasks = [asyncio.create_task(_stubborn(lost), name=f"loses {lost}") for lost in (0, 1, 2)]
    await asyncio.sleep(0)
    assert await end(tasks) == []
    assert all(task.cancelled() for task in tasks)


async def test_tasks_that_have_ended_are_no_trouble() -> None:
    """Their results stay their owners' matter."""

    async def fail() -> None:
        raise ValueError

    task = asyncio.create_task(fail())
    await asyncio.wait([task])
    assert await end([task]) == []
    assert isinstance(task.exception(), ValueError)
    assert await end([]) == []
