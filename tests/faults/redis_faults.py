"""Redis crashes, loses data, freezes, fills up, fails over, or is reset to an old state.

G2 and G7 of docs/protocol.md §2: no post fails, no stream ends and no message is lost.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import redis.asyncio as redis

from tests.faults.process_logs import REDIS_DOWN, REDIS_UP, ProcessLogs
from tests.faults.scenario import Fault, Scene
from tests.faults.world import Plan, RedisKind
from tests.support.build_checker import StatusGuarantee
from tests.support.redis_topology import redis_cli

_STREAMS = "seqstream:*:stream:*"
_FILLER_BYTES = 64 * 1024 * 1024


def _client(scene: Scene) -> redis.Redis:
    return redis.Redis.from_url(scene.world.redis.url, socket_timeout=5, protocol=2)


async def _start_again(scene: Scene) -> None:
    await asyncio.to_thread(scene.world.redis.start)


async def killed(scene: Scene) -> None:
    """A crash, an outage, a start without data."""
    await asyncio.to_thread(scene.world.redis.kill)
    await scene.last()
    await scene.all_delivered()
    await _start_again(scene)
    await scene.last(0.5)


async def stopped(scene: Scene) -> None:
    """A clean shutdown and a long outage."""
    await asyncio.to_thread(scene.world.redis.stop)
    await scene.last()
    await scene.all_delivered()
    await _start_again(scene)
    await scene.last(0.5)


async def flushed(scene: Scene) -> None:
    """FLUSHALL, again and again, under load."""
    for _ in range(10):
        await redis_cli(scene.world.redis, "FLUSHALL")
        await scene.last(0.1)


async def frozen(scene: Scene) -> None:
    """SIGSTOP: connections stay open and nothing is answered; then old requests are executed."""
    os.kill(scene.world.redis.pid, signal.SIGSTOP)
    await scene.last()
    await scene.all_delivered()
    os.kill(scene.world.redis.pid, signal.SIGCONT)
    await scene.last(0.3)


async def out_of_memory(scene: Scene) -> None:
    """`maxmemory` reached with `noeviction`: reads are answered, writes refused."""
    await redis_cli(scene.world.redis, "CONFIG", "SET", "maxmemory", "1")
    await scene.last()
    await scene.all_delivered()
    await redis_cli(scene.world.redis, "CONFIG", "SET", "maxmemory", "0")
    await scene.last(0.3)


async def full(scene: Scene) -> None:
    """A foreign key fills Redis' memory up to its limit, and is deleted in the end."""
    server = scene.world.redis
    lines = (await redis_cli(server, "INFO", "memory")).splitlines()
    (used,) = (int(line.split(":")[1]) for line in lines if line.startswith("used_memory:"))
    async with _writes_refused(scene):
        await redis_cli(server, "SETRANGE", "filler", str(_FILLER_BYTES - 1), "x")
        # Well below the memory used with the filler, and well above the memory used without it.
        await redis_cli(server, "CONFIG", "SET", "maxmemory", str(used + _FILLER_BYTES // 2))
        await scene.last()
        await scene.all_delivered()
        await redis_cli(server, "DEL", "filler")


async def read_only(scene: Scene) -> None:
    """Redis refuses writes because it requires a replica and has none."""
    async with _writes_refused(scene):
        await redis_cli(scene.world.redis, "CONFIG", "SET", "min-replicas-to-write", "1")
        await scene.last()
        await scene.all_delivered()
        await redis_cli(scene.world.redis, "CONFIG", "SET", "min-replicas-to-write", "0")


@asynccontextmanager
async def _writes_refused(scene: Scene) -> AsyncIterator[None]:
    """Check that every process logs one outage of Redis and one recovery."""
    logs = ProcessLogs(scene.world)
    yield
    await logs.wait_services(REDIS_DOWN)
    await logs.wait_services(REDIS_UP)
    await scene.load.wait_acknowledged(20)
    await scene.all_delivered()
    logs.check_redis_changed_once()
    logs.check_bounded()


async def evicting(scene: Scene) -> None:
    """`maxmemory` reached with `allkeys-random`: any stream may vanish at any time."""
    await redis_cli(scene.world.redis, "CONFIG", "SET", "maxmemory-policy", "allkeys-random")
    await redis_cli(scene.world.redis, "CONFIG", "SET", "maxmemory", "1")
    await scene.last()
    await redis_cli(scene.world.redis, "CONFIG", "SET", "maxmemory", "0")


async def restored_from_old_state(scene: Scene) -> None:
    """Streams are reset to their state of some seconds ago, as from a backup."""
    async with _client(scene) as client:
        keys = [key async for key in client.scan_iter(match=_STREAMS)]
        old = {key: await client.dump(key) for key in keys}
        for _ in range(3):
            await scene.last(0.25)
            for key, dump in old.items():
                assert dump is not None
                await client.restore(key, 0, dump, replace=True)
        await scene.last(0.25)


async def connections_killed(scene: Scene) -> None:
    """The server closes every connection, several times."""
    for _ in range(8):
        await redis_cli(scene.world.redis, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await scene.last(1 / 8)


async def entries_removed(scene: Scene) -> None:
    """Another client deletes single entries, trims streams, and deletes whole streams."""
    async with _client(scene) as client:
        for turn in range(12):
            async for key in client.scan_iter(match=_STREAMS):
                entries = await client.xrange(key)
                if turn % 4 == 3:
                    await client.delete(key)
                elif turn % 4 == 2:
                    await client.xtrim(key, maxlen=3, approximate=False)
                elif entries:
                    chosen = scene.random.sample(entries, min(5, len(entries)))
                    await client.xdel(key, *(entry_id for entry_id, _ in chosen if entry_id))
            await scene.last(1 / 12)


async def scripts_flushed(scene: Scene) -> None:
    """SCRIPT FLUSH: calls by SHA fail until the script is loaded again."""
    for _ in range(8):
        await redis_cli(scene.world.redis, "SCRIPT", "FLUSH")
        await scene.last(1 / 8)


async def failed_over_to_lagging_replica(scene: Scene) -> None:
    """The replica is behind when Sentinel makes it the primary."""
    topology = scene.world.topology
    assert topology is not None
    os.kill(topology.replica.pid, signal.SIGSTOP)
    await scene.last(0.5)
    # Data that the frozen replica has not read is lost with the primary's buffers.
    await asyncio.to_thread(topology.primary.kill)
    os.kill(topology.replica.pid, signal.SIGCONT)
    await topology.wait_failover()
    await scene.last(0.5)


async def old_primary_returns(scene: Scene) -> None:
    """A primary that was frozen returns after the failover and is made a replica."""
    topology = scene.world.topology
    assert topology is not None
    os.kill(topology.primary.pid, signal.SIGSTOP)
    await topology.wait_failover()
    await scene.last(0.5)
    os.kill(topology.primary.pid, signal.SIGCONT)
    await scene.last(0.5)


async def replica_promoted_late(scene: Scene) -> None:
    """The proxy leads to a replica, which refuses writes until it is promoted."""
    topology, proxy = scene.world.topology, scene.world.redis_proxy
    assert topology is not None
    assert proxy is not None
    await asyncio.to_thread(topology.primary.kill)
    proxy.target_port = topology.replica.port
    proxy.cut()
    await scene.last()
    await scene.all_delivered()
    await topology.promote()
    await scene.last(0.5)


FAULTS = [
    Fault("redis killed, back empty", killed, silence_s=1.0),
    Fault("redis stopped", stopped, length_s=20.0, short_s=2.0, silence_s=1.0),
    Fault("redis FLUSHALL under load", flushed, silence_s=1.0),
    Fault("redis frozen (SIGSTOP)", frozen, length_s=5.0, short_s=2.5),
    Fault("redis out of memory", out_of_memory, silence_s=1.0),
    Fault("redis refuses writes: full", full, length_s=60.0, short_s=3.0, silence_s=1.0),
    Fault("redis refuses writes: read-only", read_only, length_s=60.0, short_s=3.0, silence_s=1.0),
    Fault("redis evicting", evicting, silence_s=1.0, statuses=StatusGuarantee.LAST),
    Fault(
        "redis restored from old state",
        restored_from_old_state,
        silence_s=1.0,
        statuses=StatusGuarantee.LAST,
    ),
    Fault("redis connections killed", connections_killed, silence_s=1.0),
    Fault("redis entries removed", entries_removed, silence_s=1.0, statuses=StatusGuarantee.LAST),
    Fault("redis scripts flushed", scripts_flushed, silence_s=1.0),
    Fault(
        "redis failed over to a lagging replica",
        failed_over_to_lagging_replica,
        Plan(redis=RedisKind.SENTINEL),
        length_s=4.0,
        silence_s=1.0,
        statuses=StatusGuarantee.LAST,
    ),
    Fault(
        "redis primary frozen, failed over, back",
        old_primary_returns,
        Plan(redis=RedisKind.SENTINEL),
        length_s=4.0,
        statuses=StatusGuarantee.LAST,
    ),
    Fault(
        "redis replica promoted late",
        replica_promoted_late,
        Plan(redis=RedisKind.REPLICATED),
        silence_s=1.0,
        statuses=StatusGuarantee.LAST,
    ),
]
