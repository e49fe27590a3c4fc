"""Service processes die, freeze, and are restarted one after the other.

Clients come back elsewhere with their cursor; what was committed and not published is found by
whoever reads the project next.
"""

from __future__ import annotations

import asyncio
import signal

from tests.faults.load import Size
from tests.faults.scenario import Fault, Scene
from tests.faults.world import Plan

_ALLOWED_END_S = 10.0  # PROTOCOL §6: exits 0 within 10 s


async def killed(scene: Scene) -> None:
    """SIGKILL to one process, then to the other, and each is started again."""
    for service in scene.world.services:
        await service.kill()
        await scene.last(0.5)
        await service.start()
        await scene.last(0.25)


async def killed_before_publishing(scene: Scene) -> None:
    """The process kills itself after a commit and before it publishes it."""
    service = scene.world.services[0]
    status = await service.wait_end(timeout_s=30)
    assert status == -signal.SIGKILL, f"it ended with {status}"
    await scene.last()
    service.environment.pop("SEQSTREAM_FAULT", None)
    await service.start()
    await scene.last(0.5)


async def terminated(scene: Scene) -> None:
    """SIGTERM under load: it drains, ends with 0, and is started again."""
    service = scene.world.services[0]
    status = await service.terminate()
    assert status == 0, f"it ended with {status} at SIGTERM"
    await scene.last()
    await service.start()


async def rolling_restart(scene: Scene) -> None:
    """A new version is rolled out: each process is ended and started, one at a time."""
    for service in scene.world.services:
        status = await service.terminate()
        assert status == 0, f"{service.name} ended with {status} at SIGTERM"
        await service.start()
        await scene.last(0.5)


async def frozen(scene: Scene) -> None:
    """A process is stopped for a while (a paused machine) and goes on as if nothing had been."""
    service = scene.world.services[0]
    service.signal(signal.SIGSTOP)
    await scene.last()
    service.signal(signal.SIGCONT)
    await scene.last(0.5)


async def all_killed(scene: Scene) -> None:
    """Nobody is left for a while."""
    await asyncio.gather(*(service.kill() for service in scene.world.services))
    await scene.last(0.5)
    await asyncio.gather(*(service.start() for service in scene.world.services))
    await scene.last(0.5)


FAULTS = [
    Fault("process killed", killed),
    Fault(
        "process killed before publishing",
        killed_before_publishing,
        Plan(first_service={"SEQSTREAM_FAULT": "kill-before-publish:20"}),
        silence_s=1.5,
    ),
    Fault("process terminated under load", terminated),
    Fault("processes restarted in turn", rolling_restart),
    # More than a window passes by a frozen process: what it reads next does not meet its tail.
    Fault(
        "process frozen (SIGSTOP)",
        frozen,
        short_s=2.0,
        size=Size(clients=4, slow=0, stalled=0, writers=8, posts_per_s=480.0),
    ),
    Fault("all processes killed", all_killed),
]
