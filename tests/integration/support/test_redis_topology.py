"""Replication and failover of the tests' Redis servers."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.support.redis_topology import SENTINEL_NAME, ReplicatedRedis, redis_cli
from tests.support.waiting import wait_until


async def test_a_replica_follows_and_can_be_promoted(tmp_path: Path) -> None:
    """Writes to the primary reach the replica, which is read-only until it is promoted."""
    async with ReplicatedRedis(tmp_path) as topology:
        await redis_cli(topology.primary, "SET", "key", "1")

        async def copied() -> bool:
            return await redis_cli(topology.replica, "GET", "key") == "1\n"

        await wait_until(copied, what="the copy")
        await topology.promote()
        assert await redis_cli(topology.replica, "SET", "key", "2") == "OK\n"


async def test_sentinel_promotes_the_replica_of_a_dead_primary(tmp_path: Path) -> None:
    """Sentinel then reports the new primary's address."""
    async with ReplicatedRedis(tmp_path, sentinel=True) as topology:
        await asyncio.to_thread(topology.primary.kill)
        await topology.wait_failover()
        assert topology.sentinel is not None
        sentinel = topology.sentinel

        async def reported() -> bool:
            command = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SENTINEL_NAME)
            return str(topology.replica.port) in await redis_cli(sentinel, *command)

        await wait_until(reported, what="the new address")
