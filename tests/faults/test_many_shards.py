"""A short outage of Redis with readers in 200 shards, on a cluster and with Sentinel.

There, an exhausted pool of the driver raises an error instead of waiting. 200 lanes that reconnect
during as many calls must not exhaust a pool: that would count as the next outage.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from service.operate.embedded import PostgresServer
from streams import EventLog, NewMessage
from streams.model.errors import WindowUnavailable
from streams.model.shards import shard_of
from tests.support.follower import Follower
from tests.support.redis_topology import (
    SENTINEL_NAME,
    ClusterRedis,
    ReplicatedRedis,
    collect_dropped_nodes,
    redis_cli,
)
from tests.support.waiting import wait_until

pytestmark = [
    # A timeout by thread would end pytest at once and leave the servers running.
    pytest.mark.timeout(120, method="signal"),
    # When a cluster changes, the driver drops nodes with open connections (`dropped_nodes`), which
    # may be collected during the test.
    pytest.mark.filterwarnings("ignore:unclosed Connection:ResourceWarning"),
]


@pytest.fixture(autouse=True)
def dropped_nodes() -> Iterator[None]:
    """Collect the driver's dropped nodes now, so that no other test gets their warning."""
    yield
    collect_dropped_nodes()


_SHARDS = 200
_CUT_S = 2.0
_STAYS_WELL_S = 3.0
_MOST_LINES = 20
_WAIT_S = 20.0


def _project_per_shard() -> list[str]:
    found: dict[int, str] = {}
    for number in count():
        found.setdefault(shard_of(f"p-{number}"), f"p-{number}")
        if len(found) == _SHARDS:
            return list(found.values())
    raise AssertionError("unreachable")


class _Users:
    """One reader for each project; posts to all projects."""

    def __init__(self, log: EventLog, projects: list[str]) -> None:
        self.log = log
        self._projects = projects
        self._followers = [Follower(log, project, 0) for project in projects]
        self._head = 0

    async def close(self) -> None:
        for follower in self._followers:
            follower.task.cancel()
        await asyncio.gather(*(each.task for each in self._followers), return_exceptions=True)

    async def post_and_receive(self) -> None:
        """Post to every project, signal to every shard, and wait for every message, once."""
        self._head += 1
        message = NewMessage(user_id="u", text=f"message {self._head}")
        await asyncio.gather(
            *(self.log.append(project, message) for project in self._projects),
            *map(self._signal, self._projects),
        )
        for follower in self._followers:
            await follower.wait_seq(self._head, timeout_s=_WAIT_S)
            assert follower.seqs == list(range(1, self._head + 1))

    async def wait_well(self) -> None:
        """Wait until Redis is healthy, every lane reads, and every window ends at the head."""
        log = self.log
        await wait_until(
            lambda: log.health.redis_up and log.tails.lanes.stuck() == [],
            timeout_s=_WAIT_S,
            what=f"a healthy Redis (not read: {len(log.tails.lanes.stuck())})",
        )
        for project in self._projects:
            await wait_until(
                lambda project=project: self._is_published(project),
                timeout_s=_WAIT_S,
                what=f"the window of {project}",
            )

    async def _signal(self, project: str) -> None:
        with contextlib.suppress(WindowUnavailable):
            await self.log.tails.lanes.signal(project, "test.signal", b"{}")

    async def _is_published(self, project: str) -> bool:
        last = await self.log.window.last_id(project)
        return last is not None and last.seq == self._head


@contextlib.asynccontextmanager
async def _users(
    postgres: PostgresServer, database_url: str, redis_url: str
) -> AsyncIterator[_Users]:
    projects = _project_per_shard()
    rows = ", ".join(f"('{project}', 'u', 'x')" for project in projects)
    database = urlsplit(database_url).path.removeprefix("/")
    command = f"INSERT INTO projects (id, owner_id, name) VALUES {rows}"
    await asyncio.to_thread(postgres.psql, command, database=database)
    async with EventLog.open(database_url, redis_url) as log:
        users = _Users(log, projects)
        try:
            await wait_until(lambda: len(log.tails.all()) == _SHARDS, what="all tails")
            await users.post_and_receive()
            await users.wait_well()
            yield users
        finally:
            await users.close()


async def _settles(users: _Users, caplog: pytest.LogCaptureFixture) -> None:
    """Check that Redis becomes healthy once and stays healthy under posts to every project."""
    await users.wait_well()
    until_s = time.monotonic() + _STAYS_WELL_S
    while time.monotonic() < until_s:
        await users.post_and_receive()
    await users.wait_well()
    logged = [each.getMessage() for each in caplog.records if each.name.startswith("streams")]
    changes = [message for message in logged if message.startswith("redis ")]
    assert changes == [
        "redis is unhealthy: streams continue from the log", "redis is healthy again",
    ]  # fmt: skip
    assert len(logged) < _MOST_LINES, logged


async def test_a_cluster_settles_after_a_node_was_killed(
    tmp_path: Path,
    postgres: PostgresServer,
    database_url: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """G2, G7 of docs/protocol.md §2: one outage is reported once, with any number of lanes."""
    async with (
        ClusterRedis(tmp_path) as cluster,
        _users(postgres, database_url, cluster.url) as users,
    ):
        caplog.clear()
        caplog.set_level(logging.INFO)
        await asyncio.to_thread(cluster.nodes[2].kill)
        await users.post_and_receive()
        await wait_until(lambda: not users.log.health.redis_up, what="the outage noticed")
        await users.post_and_receive()
        await asyncio.to_thread(cluster.nodes[2].start)
        await cluster.wait_ok()
        await _settles(users, caplog)


async def test_a_sentinel_setup_settles_after_the_primary_was_cut(
    tmp_path: Path,
    postgres: PostgresServer,
    database_url: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """G2, G7 of docs/protocol.md §2: all connections are lost, and none can be made for 2 s."""
    async with ReplicatedRedis(tmp_path, sentinel=True) as redis:
        assert redis.sentinel is not None
        # Sentinel waits longer than the outage lasts: no failover.
        await redis_cli(
            redis.sentinel, "SENTINEL", "SET", SENTINEL_NAME, "down-after-milliseconds", "60000"
        )
        async with _users(postgres, database_url, redis.url) as users:
            caplog.clear()
            caplog.set_level(logging.INFO)
            await redis_cli(redis.primary, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            os.kill(redis.primary.pid, signal.SIGSTOP)
            try:
                until_s = time.monotonic() + _CUT_S
                while time.monotonic() < until_s:
                    await users.post_and_receive()
                await wait_until(lambda: not users.log.health.redis_up, what="the outage noticed")
            finally:
                os.kill(redis.primary.pid, signal.SIGCONT)
            await _settles(users, caplog)
