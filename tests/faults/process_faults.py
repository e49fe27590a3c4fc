"""Service processes are killed, frozen, and restarted one after another.

Clients reconnect to another process with their cursor. Messages that were committed and not
published are found by the next reader of the project.
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

_CLOSING = 'stream.closing {"reason":"shutdown"'


async def killed(scene: Scene) -> None:
    """SIGKILL to one process, then to the other, and each is started again."""
    for service in scene.world.services:
        await service.kill()
        await scene.last(0.5)
        await service.start()
        await scene.last(0.25)


async def killed_before_publishing(scene: Scene) -> None:
    """The process kills itself between a commit and its publishing."""
    service = scene.world.services[0]
    status = await service.wait_end(timeout_s=30)
    assert status == -signal.SIGKILL, f"it ended with {status}"
    await scene.last()
    service.environment.pop("SEQSTREAM_FAULT", None)
    await service.start()
    await scene.last(0.5)


async def terminated(scene: Scene) -> None:
    """SIGTERM under load: the process drains, exits with 0, and is started again."""
    await _terminate_gracefully(scene, scene.world.services[0])
    await scene.last()
    await scene.world.services[0].start()


async def rolling_restart(scene: Scene) -> None:
    """A rolling update: each process is terminated and started, one at a time."""
    for service in scene.world.services:
        await _terminate_gracefully(scene, service)
        await service.start()
        await scene.last(0.5)


async def frozen(scene: Scene) -> None:
    """A process is stopped for a while, as on a paused machine, and continued."""
    service = scene.world.services[0]
    service.signal(signal.SIGSTOP)
    await scene.last()
    service.signal(signal.SIGCONT)
    await scene.last(0.5)


async def all_killed(scene: Scene) -> None:
    """All service processes are killed, and started again."""
    await asyncio.gather(*(service.kill() for service in scene.world.services))
    await scene.last(0.5)
    await asyncio.gather(*(service.start() for service in scene.world.services))
    await scene.last(0.5)


async def worker_killed(scene: Scene) -> None:
    """SIGKILL to the worker during a build: another attempt follows."""
    worker = scene.world.worker
    assert worker is not None
    await worker.kill()
    await scene.last()
    worker.spawn()
    await scene.last(0.5)


async def _terminate_gracefully(scene: Scene, service: ServiceProcess) -> None:
    """Send SIGTERM; every stream that was open must get `stream.closing` before its end."""
    before = {client.name: len(client.ends) for client in scene.load.steady}
    status = await service.terminate()
    assert status == 0, f"{service.name} ended with {status} at SIGTERM"
    ends = [end for client in scene.load.steady for end in client.ends[before[client.name] :]]
    # A connection that was made during the shutdown is refused; through a proxy it is reset.
    other = [end for end in ends if not end.startswith(_CLOSING) and not end.endswith(UNOPENED)]
    assert not other, f"streams ended with {other[0]}"


FAULTS = [
    Fault("process killed", killed, statuses=StatusGuarantee.ALL),
    # Without the limit, `service/routes/direct_append.py` appends a post without a task.
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
    # More than a window is published while the process is frozen: its next read has a gap.
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
