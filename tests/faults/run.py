"""Runs one fault from its beginning to the verdict.

The load begins, the fault happens, the load continues for a while and ends, and all clients catch
up. Then the log is read over HTTP and from Postgres, and the checkers compare everything with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from pathlib import Path

from tests.faults.aftermath import (
    end_processes,
    read_builds,
    read_log,
    unhandled_errors,
    wait_for_answers,
)
from tests.faults.load import PROJECT, Load, Size
from tests.faults.result import Result
from tests.faults.scenario import Fault, Scene
from tests.faults.verdict import Recorded, judge, judge_builds
from tests.faults.window_check import check_window
from tests.faults.world import SharedPostgres, World
from tests.support.history import BuildRow, LogRow
from tests.support.waiting import wait_until

_SETTLE_TIMEOUT_S = 30.0
_DELIVERY_TIMEOUT_S = 10.0


async def run_fault(
    fault: Fault,
    folder: Path,
    shared: SharedPostgres,
    *,
    size: Size,
    length_s: float,
    seed: int,
    before_s: float = 0.5,
    after_s: float = 0.5,
) -> Result:
    """Start a world and its load, inject the fault, and judge."""
    async with (
        World(fault.plan, folder, shared, seed=seed) as world,
        Load(world, fault.size or size, seed=seed) as load,
    ):
        scene = Scene(world, load, length_s, random.Random(f"{seed}-{fault.name}"))
        await asyncio.sleep(before_s)
        failures: list[str] = []
        try:
            await fault.inject(scene)
        except (AssertionError, TimeoutError) as error:
            failures.append(f"{fault.name}: {error or type(error).__name__}")
        await load.join()
        await asyncio.sleep(after_s)
        failures += await load.stop_writing(timeout_s=_SETTLE_TIMEOUT_S)
        settling_s = time.monotonic()
        builds = await read_builds(world, failures)
        await wait_for_answers(world, failures)
        log = await read_log(world, failures)
        failures += await load.settle(len(log), timeout_s=_SETTLE_TIMEOUT_S)
        settled_s = time.monotonic()
        await _wait_for_statuses(fault, load, builds, log)
        failures += [f"{c.name} gave up: {c.failure}" for c in load.clients if c.failure]
        for client in load.clients:
            await client.close()
        failures += await check_window(world, PROJECT, log)
        failures += await end_processes(world)
        failures += unhandled_errors(world)
        recorded = Recorded(builds, log, failures, settled_s - settling_s)
        return judge(fault, scene, seed, recorded)


async def _wait_for_statuses(
    fault: Fault, load: Load, builds: list[BuildRow], log: list[LogRow]
) -> None:
    """Wait until clients have the statuses they must receive; the checker reports missing ones."""
    with contextlib.suppress(TimeoutError):
        await wait_until(
            lambda: not judge_builds(fault, load, builds, log),
            timeout_s=_DELIVERY_TIMEOUT_S,
            what="every status",
        )
