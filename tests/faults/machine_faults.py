"""Faults of the machine: a full disk and a stepping clock."""

from __future__ import annotations

import asyncio

from tests.faults.machine import fill_disk, why_no_small_disk, why_no_stepping_clock
from tests.faults.scenario import Fault, Scene
from tests.faults.world import Plan
from tests.support.build_checker import StatusGuarantee

# Signed requests may differ by up to 300 s from the service's clock; these steps stay below.
_STEPS_S = (200.0, -200.0, 60.0, -60.0, 0.0)


async def disk_full(scene: Scene) -> None:
    """Postgres' disk is full, which may even crash Postgres; then blocks are freed."""
    disk = scene.world.small_disk
    assert disk is not None
    filler = disk / "filler"
    taken = await asyncio.to_thread(fill_disk, filler)
    scene.notes.append(f"{taken // 2**20} MiB filled")
    await scene.last()
    filler.unlink()
    if not scene.world.postgres.is_running():
        scene.notes.append("Postgres had ended")
        await asyncio.to_thread(scene.world.postgres.start)
    await scene.last(0.5)


async def clock_steps(scene: Scene) -> None:
    """The clock of the services and of Redis steps forward and back by minutes."""
    clock = scene.world.clock
    assert clock is not None
    for offset_s in _STEPS_S:
        clock.step_to(offset_s)
        await scene.last(1 / len(_STEPS_S))


FAULTS = [
    Fault(
        "postgres disk full",
        disk_full,
        Plan(own_postgres=True, postgres_disk_mib=160),
        short_s=3.0,
        unavailable=why_no_small_disk,
        statuses=StatusGuarantee.ALL,
    ),
    Fault(
        "clock steps",
        clock_steps,
        Plan(stepping_clock=True),
        unavailable=why_no_stepping_clock,
        silence_s=1.0,
        statuses=StatusGuarantee.ALL,
    ),
]
