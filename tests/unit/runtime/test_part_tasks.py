"""Parts run until they are cancelled: one that ends by itself is reported."""

from __future__ import annotations

import asyncio
import logging

import pytest

from streams.runtime.part_tasks import PartTasks


async def _until_cancelled() -> None:
    await asyncio.Event().wait()


async def _broken() -> None:
    raise RuntimeError("a bug")


async def test_a_part_that_ends_by_an_error_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    """Its name is known, whoever waits for a failure is woken, and one critical line is logged."""
    parts = PartTasks()
    parts.start("steady", _until_cancelled())
    parts.start("broken", _broken())
    async with asyncio.timeout(5):
        await parts.failed()
    assert parts.failed_part == "broken"
    (record,) = caplog.records
    assert (record.levelno, vars(record)["part"]) == (logging.CRITICAL, "broken")
    await parts.end()


async def test_a_part_that_returns_is_reported_too() -> None:
    """A quiet end is the outage that nobody notices."""
    parts = PartTasks()
    parts.start("quiet", asyncio.sleep(0))
    async with asyncio.timeout(5):
        await parts.failed()
    assert parts.failed_part == "quiet"


async def test_ending_all_parts_is_no_failure() -> None:
    """A log that closes ends its parts."""
    parts = PartTasks()
    parts.start("steady", _until_cancelled())
    await asyncio.sleep(0)
    await parts.end()
    assert parts.failed_part is None


async def test_after_expect_end_an_end_is_no_failure() -> None:
    """While a log drains, its parts may end before they are cancelled."""
    parts = PartTasks()
    parts.expect_end()
    parts.start("quiet", asyncio.sleep(0))
    await asyncio.sleep(0)
    await parts.end()
    assert parts.failed_part is None
