"""Connections to Redis: every failure is `WindowUnavailable`, calls are bounded in time."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from service.operate.embedded import RedisServer, free_port
from streams.model.errors import WindowUnavailable
from streams.model.ids import EntryId
from streams.model.shards import shard_of
from streams.window import keys
from streams.window.lua import script
from streams.window.redis_client import RedisClient
from streams.window.window import Run, Window
from tests.support.redis_topology import ReplicatedRedis, free_node_port, redis_cli
from tests.support.tls_relay import make_certificate, tls_relay, why_no_tls
from tests.support.waiting import wait_until


async def test_a_refused_connection_is_unavailable() -> None:
    """No driver's error leaves `streams/window`."""
    client = RedisClient(f"redis://127.0.0.1:{free_port()}/0", timeout_s=0.5)
    with pytest.raises(WindowUnavailable):
        await client.call("PING")
    await client.close()


async def test_a_redis_that_hangs_is_unavailable_in_bounded_time(own_redis: RedisServer) -> None:
    """Every await that can hang has a timeout."""
    client = RedisClient(own_redis.url, timeout_s=0.2)
    await client.call("PING")
    os.kill(own_redis.pid, signal.SIGSTOP)
    try:
        async with asyncio.timeout(10):
            with pytest.raises(WindowUnavailable):
                await client.call("PING")
    finally:
        os.kill(own_redis.pid, signal.SIGCONT)
    # The connection that timed out is not used again with its late reply.
    assert await client.call("XRANGE", "nothing", "-", "+") == []
    await client.close()


def _kept(client: RedisClient) -> list[Any]:
    assert client._connections is not None
    return client._connections.kept


async def test_a_kept_connection_that_ended_is_replaced(own_redis: RedisServer) -> None:
    """A publish does not fail because its kept connection was closed meanwhile."""
    client = RedisClient(own_redis.url)
    window = Window(client)
    assert (await window.append(Run("p", 1, [b"{}"]))).status == "ok"
    (kept,) = _kept(client)
    await client.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    await wait_until(kept.can_read, what="the end of the kept connection")
    assert (await window.append(Run("p", 2, [b"{}"]))).status == "ok"
    await client.close()


async def test_a_cancelled_script_leaves_no_late_reply(own_redis: RedisServer) -> None:
    """The next script gets its own reply, not that of the cancelled one."""
    client = RedisClient(own_redis.url)
    window = Window(client)
    await window.append(Run("p", 1, [b"{}"]))
    os.kill(own_redis.pid, signal.SIGSTOP)
    try:
        late = asyncio.create_task(window.append(Run("p", 2, [b"{}"])))
        await wait_until(lambda: not _kept(client), what="the script")
        await asyncio.sleep(0)
        late.cancel()
        with pytest.raises(asyncio.CancelledError):
            await late
    finally:
        os.kill(own_redis.pid, signal.SIGCONT)
    assert (await window.append(Run("q", 7, [b"{}"]))).status == "hole"
    await client.close()


async def test_many_scripts_at_once_share_the_connections(redis_client: RedisClient) -> None:
    """More scripts than connections, three times: each gets its own reply."""
    window = Window(redis_client)
    for seq in range(1, 4):
        runs = [Run(f"many-{number}", seq, [b"{}"]) for number in range(60)]
        results = await asyncio.gather(*(window.append(run) for run in runs))
        assert [result.hi for result in results] == [seq] * 60


async def test_an_error_of_one_call_in_a_pipeline_does_not_fail_the_others(
    redis_client: RedisClient,
) -> None:
    """A key of the wrong type fails its own call only."""
    await redis_client.call("SET", keys.stream("broken"), "no stream", "EX", 60)
    window = Window(redis_client)
    broken, fine = await window.append_all([Run("broken", 1, [b"{}"]), Run("fine", 1, [b"{}"])])
    assert isinstance(broken, WindowUnavailable)
    assert not isinstance(fine, WindowUnavailable)
    assert fine.status == "ok"
    await redis_client.call("DEL", keys.stream("broken"))


async def test_a_blocking_read_that_was_cancelled_leaves_no_late_reply(
    redis_client: RedisClient,
) -> None:
    """The connection is closed on cancellation, because the reply may still arrive on it."""
    key = keys.stream("cancelled")
    connection = redis_client.dedicated(key, block_s=5.0)
    read = asyncio.create_task(connection.call("XREAD", "BLOCK", 5000, "STREAMS", key, "0-0"))

    async def blocked() -> bool:
        return bool((await redis_client.call("INFO", "clients"))["blocked_clients"])

    await wait_until(blocked, what="a blocked read")
    read.cancel()
    await asyncio.gather(read, return_exceptions=True)
    await Window(redis_client).append(Run("cancelled", 1, [b"{}"]))
    assert await connection.call("XREVRANGE", key, "+", "-", "COUNT", 1) != []
    await connection.close()


async def test_a_blocking_read_longer_than_the_timeout_of_commands_is_not_cut(
    own_redis: RedisServer,
) -> None:
    """The driver's own timeout must not abort a quiet read."""
    client = RedisClient(own_redis.url, timeout_s=0.1)
    connection = client.dedicated("k", block_s=0.6)
    assert await connection.call("XREAD", "BLOCK", 600, "STREAMS", "k", "0-0") is None
    await connection.close()
    await client.close()


async def test_a_unix_socket_works(tmp_path_factory: pytest.TempPathFactory) -> None:
    """§7: `unix://`, for commands and for lanes."""
    folder = tmp_path_factory.mktemp("unix")
    with RedisServer(folder / "data", on_socket=True) as server:
        client = RedisClient(server.url)
        assert await client.call("PING")
        connection = client.dedicated("k", block_s=1.0)
        assert await connection.call("XREAD", "BLOCK", 10, "STREAMS", "k", "0-0") is None
        await connection.close()
        await client.close()


async def test_a_password_and_a_database_in_the_url_are_used(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """§7: `REDIS_URL` with credentials, for commands and for lanes."""
    folder = tmp_path_factory.mktemp("password")
    with RedisServer(folder / "data") as server:
        await redis_cli(server, "CONFIG", "SET", "requirepass", "p@ss/w")
        client = RedisClient(f"redis://:p%40ss%2Fw@127.0.0.1:{server.port}/3")
        await client.call("SET", "a", "b")
        connection = client.dedicated("a", block_s=1.0)
        assert await connection.call("GET", "a") == b"b"
        await connection.close()
        await client.close()


@pytest.fixture(scope="module")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RedisClient]:
    """A cluster of one server, which holds every slot."""
    folder: Path = tmp_path_factory.mktemp("cluster")
    arguments = ["--cluster-enabled", "yes"]
    with RedisServer(folder / "data", port=free_node_port(), arguments=arguments) as server:
        await redis_cli(server, "CLUSTER", "ADDSLOTS", *map(str, range(16384)))

        async def ready() -> bool:
            return "cluster_state:ok" in await redis_cli(server, "CLUSTER", "INFO")

        await wait_until(ready, what="the cluster")
        client = RedisClient(server.url.replace("redis://", "redis+cluster://"))
        yield client
        await client.close()


async def test_windows_work_on_a_cluster(cluster: RedisClient) -> None:
    """§7: `redis+cluster://`: many projects in one round trip."""
    window = Window(cluster)
    runs = [Run(f"p{number}", 1, [b"{}", b"{}"]) for number in range(20)]
    results = await window.append_all(runs)
    assert [str(each) for each in results] == ["AppendResult(status='ok', hi=2)"] * 20
    assert await window.last_id("p7") == EntryId(2, 0)


async def test_one_read_names_many_streams_of_a_shard_on_a_cluster(cluster: RedisClient) -> None:
    """The hash tag lets one XREAD name many streams, on Redis Cluster too."""
    same = [f"s{n}" for n in range(400) if shard_of(f"s{n}") == shard_of("s0")][:3]
    window = Window(cluster)
    await window.append_all([Run(project, 1, [b"{}"]) for project in same])
    names = [keys.stream(project) for project in same]
    connection = cluster.dedicated(names[0], block_s=1.0)
    reply = await connection.call("XREAD", "BLOCK", 500, "STREAMS", *names, *["0-0"] * len(names))
    assert [key.decode() for key, _ in reply] == names
    await connection.close()


async def test_a_script_is_loaded_where_its_slot_lives(cluster: RedisClient) -> None:
    """§7: a cluster's servers each need the script."""
    assert await cluster.run(script("take_token"), keys.post_bucket("p", "u"), "1", 1) == 0


async def test_all_clients_share_the_connection_to_a_sentinel(tmp_path: Path) -> None:
    """Lanes that reconnect leave no connection open at a Sentinel."""
    async with ReplicatedRedis(tmp_path, sentinel=True) as redis:
        before = await _clients_of_sentinel(redis)
        client = RedisClient(redis.url)
        for number in range(10):
            lane = client.dedicated(f"key-{number}", block_s=1)
            await lane.call("GET", f"key-{number}")
            await lane.close()
        assert await _clients_of_sentinel(redis) - before <= 1
        await client.close()
        await wait_until(lambda: _is_left_alone(redis, before), what="the end of the last one")


async def _clients_of_sentinel(redis: ReplicatedRedis) -> int:
    assert redis.sentinel is not None
    lines = (await redis_cli(redis.sentinel, "INFO", "clients")).splitlines()
    (count,) = (line.split(":")[1] for line in lines if line.startswith("connected_clients:"))
    return int(count)


async def _is_left_alone(redis: ReplicatedRedis, before: int) -> bool:
    return await _clients_of_sentinel(redis) <= before


async def test_rediss_speaks_tls_and_checks_the_certificate(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    """§7: `rediss://`, for calls and for blocking reads; an unknown certificate is refused."""
    reason = why_no_tls()
    if reason is not None:
        pytest.skip(reason)
    certificate, key = make_certificate(tmp_path)
    async with tls_relay(redis_server.port, certificate, key) as port:
        plain = redis_server.url_at(port).replace("127.0.0.1", "localhost")
        tls = plain.replace("redis://", "rediss://")
        client = RedisClient(f"{tls}?ssl_ca_certs={certificate}")
        await client.call("SET", "tls", "yes", "EX", 60)
        connection = client.dedicated("tls", block_s=1.0)
        assert await connection.call("GET", "tls") == b"yes"
        assert await connection.call("XREAD", "BLOCK", 10, "STREAMS", "none", "0-0") is None
        await connection.close()
        await client.call("DEL", "tls")
        await client.close()
        for url in (tls, plain):
            stranger = RedisClient(url)
            with pytest.raises(WindowUnavailable):
                await stranger.call("PING")
            await stranger.close()


@pytest.mark.parametrize("blocking", [False, True])
async def test_a_call_ends_when_it_is_cancelled_at_any_step(
    redis_client: RedisClient, blocking: bool
) -> None:
    """A task that ignores its cancellation would hang the shutdown (§6: within 10 s)."""
    swallowed = []
    for step in range(40):
        connection = redis_client.dedicated("k", block_s=5.0)
        call = connection.call if blocking else redis_client.call
        task = asyncio.create_task(call("XREVRANGE", "k", "+", "-", "COUNT", 1))
        for _ in range(step):
            await asyncio.sleep(0)
        if task.cancel():
            await asyncio.wait([task])
            if not task.cancelled():
                swallowed.append(step)
        await connection.close()
    assert swallowed == []
