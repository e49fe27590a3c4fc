"""Streams, disconnects and faults of Redis leak no open files, no memory and no connections.

The rounds follow each other without pauses, so a minute here stands for about an hour of use.
"""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import httpx
import pytest

from service.operate.embedded import PostgresServer, RedisServer
from tests.faults.world import Plan, SharedPostgres, World
from tests.support.api import Api
from tests.support.redis_topology import redis_cli
from tests.support.signing import token
from tests.support.waiting import wait_until

_ROUNDS = 12
_STREAMS = 60
_READERS = 6  # each opens half of the streams that a user may have in a project
# The connections of `Api`: httpx keeps up to 20 of them open.
_KEPT_ALIVE = 20
# Pooled connections to Redis and Postgres, up to this many, may be opened in a later round.
_POOLED = 24
_ALLOWED_GROWTH_BYTES = 12 * 2**20


@pytest.mark.timeout(180, method="signal")  # a thread would end pytest and leave servers
async def test_nothing_is_left_behind(
    tmp_path: Path, postgres: PostgresServer, template_database: str
) -> None:
    """After a warm-up, open files and memory do not grow over rounds of streams and faults."""
    shared = SharedPostgres(postgres, template_database)
    async with World(Plan(services=1), tmp_path, shared, seed=1) as world:
        service = world.services[0]
        async with Api(service.url, "u") as api:
            for project in ("a", "b"):
                await api.create_project(project)
                for number in range(_READERS):
                    await api.add_member(project, f"reader-{number}")
            files: list[int] = []
            sizes: list[int] = []
            for number in range(_ROUNDS):
                await _streams_come_and_go(service.url, api)
                await _disturb(world.redis, number)
                await _all_gone(service.url)
                await wait_until(
                    lambda: service.client_connections() <= _KEPT_ALIVE,
                    what="all connections closed",
                )
                files.append(service.open_files())
                sizes.append(service.resident_bytes())
        assert min(files[-3:]) - max(files[2:5]) < _POOLED, f"open files by round: {files}"
        growth = min(sizes[-3:]) - max(sizes[2:5])
        assert growth < _ALLOWED_GROWTH_BYTES, f"memory by round: {[s // 2**10 for s in sizes]} KiB"


async def _streams_come_and_go(url: str, api: Api) -> None:
    async with httpx.AsyncClient(
        verify=False, trust_env=False, timeout=20, limits=httpx.Limits(max_connections=None)
    ) as http:

        async def watch(number: int) -> None:
            project = "ab"[number % 2]
            reader = token(f"reader-{number // 2 % _READERS}")
            target = f"{url}/v1/projects/{project}/chat/stream?from_seq=0&token={reader}"
            async with http.stream("GET", target) as response:
                assert response.status_code == 200
                seen = b""
                async for chunk in response.aiter_raw():
                    seen += chunk
                    if b"stream.live" in seen:
                        return  # disconnects while the stream is open

        posts = [api.post("ab"[number % 2], f"text {number}") for number in range(20)]
        await asyncio.gather(*(watch(number) for number in range(_STREAMS)), *posts)


async def _disturb(redis: RedisServer, number: int) -> None:
    if number % 3 == 0:
        await redis_cli(redis, "CLIENT", "KILL", "TYPE", "normal")
    elif number % 3 == 1:
        await redis_cli(redis, "FLUSHALL")
    else:
        os.kill(redis.pid, signal.SIGSTOP)
        await asyncio.sleep(0.3)
        os.kill(redis.pid, signal.SIGCONT)


async def _all_gone(url: str) -> None:
    """Wait until the service's metrics count no open stream."""
    async with httpx.AsyncClient(verify=False, trust_env=False, timeout=10) as http:

        async def gone() -> bool:
            text = (await http.get(f"{url}/metrics")).text
            open_streams = [
                float(line.rpartition(" ")[2])
                for line in text.splitlines()
                if line.startswith("sse_connections")
            ]
            return sum(open_streams) == 0

        await wait_until(gone, what="no open stream")
