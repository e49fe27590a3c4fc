"""Two faults at the same time, and a random sequence of faults."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from tests.faults import network_faults, postgres_faults, process_faults, redis_faults
from tests.faults.scenario import Fault, Scene
from tests.faults.world import Plan
from tests.support.build_checker import StatusGuarantee

_OWN = Plan(own_postgres=True)
_OWN_PROXIED = Plan(own_postgres=True, proxied=True)


def _both(
    *injections: Callable[[Scene], Awaitable[None]],
) -> Callable[[Scene], Awaitable[None]]:
    async def inject(scene: Scene) -> None:
        await asyncio.gather(*(injection(scene) for injection in injections))

    return inject


async def storm(scene: Scene) -> None:
    """Three faults, chosen by the seed, one after another; recovery from them may overlap."""
    choices = [
        redis_faults.flushed,
        redis_faults.killed,
        redis_faults.connections_killed,
        network_faults.clients_cut,
        network_faults.redis_stalled,
        network_faults.postgres_cut,
        process_faults.killed,
        process_faults.rolling_restart,
        postgres_faults.connections_terminated,
    ]
    for _ in range(3):
        chosen = scene.random.choice(choices)
        scene.notes.append(chosen.__name__)
        await chosen(scene)


FAULTS = [
    Fault("redis and a process killed", _both(redis_faults.killed, process_faults.killed)),
    Fault("redis and postgres killed", _both(redis_faults.killed, postgres_faults.killed), _OWN),
    Fault(
        "redis flushed, clients cut",
        _both(redis_faults.flushed, network_faults.clients_cut),
        Plan(proxied=True),
    ),
    Fault(
        "postgres restarted, redis half-open",
        _both(postgres_faults.restarted, network_faults.redis_stalled),
        _OWN_PROXIED,
        short_s=2.0,
    ),
    Fault(
        "postgres killed, clients cut",
        _both(postgres_faults.killed, network_faults.clients_cut),
        _OWN_PROXIED,
        statuses=StatusGuarantee.ALL,
    ),
    Fault(
        "commits fail, processes restarted in turn",
        _both(postgres_faults.commits_fail, process_faults.rolling_restart),
        statuses=StatusGuarantee.ALL,
    ),
    Fault(
        "killed before publishing, redis away",
        _both(process_faults.killed_before_publishing, redis_faults.stopped),
        Plan(first_service={"SEQSTREAM_FAULT": "kill-before-publish:20"}),
    ),
    Fault("storm", storm, _OWN_PROXIED, short_s=1.0),
]
