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
from tests.support.build_checker import StatusGuarantee
from tests.support.processes import ServiceProcess
from tests.support.sse_client import UNOPENED

_GOODBYE = 'stream.closing {"reason":"shutdown"'


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
    await _end_well(scene, scene.world.services[0])
    await scene.last()
    await scene.world.services[0].start()


async def rolling_restart(scene: Scene) -> None:
    """A new version is rolled out: each process is ended and started, one at a time."""
    for service in scene.world.services:
        await _end_well(scene, service)
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


async def worker_killed(scene: Scene) -> None:
    """SIGKILL to the worker, with a build in its hands: another attempt follows."""
    worker = scene.world.worker
    assert worker is not None
    await worker.kill()
    await scene.last()
    worker.spawn()
    await scene.last(0.5)


async def _end_well(scene: Scene, service: ServiceProcess) -> None:
    """Send SIGTERM; every stream that could be told must have been told before its end."""
    before = {client.name: len(client.ends) for client in scene.load.steady}
    status = await service.terminate()
    assert status == 0, f"{service.name} ended with {status} at SIGTERM"
    ends = [end for client in scene.load.steady for end in client.ends[before[client.name] :]]
    # A connection that came too late to be a stream is refused, by a proxy with a reset.
    untold = [end for end in ends if not end.startswith(_GOODBYE) and not end.endswith(UNOPENED)]
    assert not untold, f"streams ended with {untold[0]}"


FAULTS = [
    Fault("process killed", killed, statuses=StatusGuarantee.ALL),
    # Without the limit on posts a post goes without a task (`service/routes/direct_append.py`).
    Fault(
        "process killed, no limit on posts",
        killed,
        Plan(settings={"SEQSTREAM_POSTS_PER_SECOND": "0"}),
        statuses=StatusGuarantee.ALL,
    ),
    Fault(
        "process killed before publishing",
        killed_before_publishing,
        Plan(first_service={"SEQSTREAM_FAULT": "kill-before-publish:20"}),
        silence_s=1.5,
        statuses=StatusGuarantee.ALL,
    ),
    Fault("process terminated under load", terminated, statuses=StatusGuarantee.ALL),
    Fault("processes restarted in turn", rolling_restart, statuses=StatusGuarantee.ALL),
    # More than a window passes by a frozen process: what it reads next does not meet its tail.
    Fault(
        "process frozen (SIGSTOP)",
        frozen,
        short_s=2.0,
        size=Size(clients=4, slow=0, stalled=0, writers=12, posts_per_s=480.0),
        statuses=StatusGuarantee.NONE,
    ),
    Fault("worker killed", worker_killed, statuses=StatusGuarantee.ALL),
    Fault("all processes killed", all_killed, statuses=StatusGuarantee.ALL),
]
