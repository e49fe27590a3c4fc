"""The whole library on a Redis Cluster of three nodes (docs/protocol.md §7)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from service.operate.embedded import RedisServer
from streams import EventLog, NewMessage
from streams.window import keys
from tests.integration.conftest import NewProject, OpenLog
from tests.support.follower import Follower, following
from tests.support.redis_topology import ClusterRedis, collect_dropped_nodes, redis_cli
from tests.support.waiting import wait_until

# By a thread it would end pytest at once and leave the servers running.
pytestmark = pytest.mark.timeout(120, method="signal")


@pytest.fixture(autouse=True)
def dropped_nodes() -> Iterator[None]:
    """Collect what the driver dropped, here and not in another test."""
    yield
    collect_dropped_nodes()


@pytest.fixture(scope="module")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ClusterRedis]:
    """Three nodes."""
    async with ClusterRedis(tmp_path_factory.mktemp("cluster")) as started:
        yield started


@pytest.fixture
async def spread(cluster: ClusterRedis, new_project: NewProject) -> list[str]:
    """A project on each node, in the order of the nodes."""
    found: dict[int, str] = {}
    while len(found) < len(cluster.nodes):
        project = await new_project("spread")
        holder = await cluster.holder_of(keys.stream(project))
        found.setdefault(cluster.nodes.index(holder), project)
    return [found[number] for number in range(len(cluster.nodes))]


async def _post(log: EventLog, project: str, count: int) -> None:
    for n in range(count):
        await log.append(project, NewMessage(user_id="u", text=f"m{n}"))


async def _length(server: RedisServer, project: str) -> int:
    return int(await redis_cli(server, "XLEN", keys.stream(project)))


async def test_projects_live_on_all_nodes(
    cluster: ClusterRedis, spread: list[str], open_log: OpenLog
) -> None:
    """Append, follow, and resume from the window, each project on another node."""
    one, other = await open_log(redis_url=cluster.url), await open_log(redis_url=cluster.url)
    for number, project in enumerate(spread):
        async with following(other, project) as follower:
            await _post(one, project, 5)
            await follower.wait_seq(5)
            assert follower.seqs == [1, 2, 3, 4, 5]
        await one.publisher.drained()
        assert await _length(cluster.nodes[number], project) == 5
    # A process that was not there: its memory begins at the head, the rest is in the window.
    late = await open_log(redis_url=cluster.url)
    for project in spread:
        async with late.tails.reading(project) as tail:
            reader = late.reader(tail, 2)
            assert (await reader.read()).last_seq == 5
            assert reader.source == "redis"


async def test_one_commit_of_all_nodes_projects_is_published_to_each(
    cluster: ClusterRedis, spread: list[str], open_log: OpenLog
) -> None:
    """Group commit, then one round trip for streams on several nodes."""
    log = await open_log(redis_url=cluster.url)
    await asyncio.gather(*(_post(log, project, 10) for project in spread))
    await log.publisher.drained()
    assert [
        await _length(cluster.nodes[number], project) for number, project in enumerate(spread)
    ] == [10, 10, 10]


async def test_typing_and_presence_reach_the_other_process_on_every_node(
    cluster: ClusterRedis, spread: list[str], open_log: OpenLog
) -> None:
    """§4, §6: ephemeral events go through the shard's own node."""
    one, other = await open_log(redis_url=cluster.url), await open_log(redis_url=cluster.url)
    heard: set[tuple[str, str]] = set()
    other.tails.on_notice(lambda project, event, data: heard.add((project, event)))
    for project in spread:
        async with following(other, project):
            await wait_until(lambda: other.tails.lanes.stuck() == [], what="the lanes")
            one.presence.opened(project, "u")
            await one.typing.say(project, "u", True)
            await wait_until(
                lambda project=project: {
                    (project, "typing.start"), (project, "presence.changed")
                } <= heard,
                what=f"typing and presence ({heard})",
            )  # fmt: skip
            assert [each.user_id for each in await other.presence.online(project)] == ["u"]
            one.presence.closed(project, "u")


async def test_a_slot_moves_under_readers_and_writers(
    cluster: ClusterRedis, spread: list[str], open_log: OpenLog
) -> None:
    """G1 to G3: nothing is lost or out of order, and the stream goes on at the other node."""
    one, other = await open_log(redis_url=cluster.url), await open_log(redis_url=cluster.url)
    project = spread[0]
    source, target = cluster.nodes[0], cluster.nodes[1]
    await _post(one, project, 5)
    async with following(one, project) as here, following(other, project) as there:
        move = await cluster.begin_move(keys.stream(project), target)
        await _post(one, project, 5)
        await _all_have(10, here, there)
        assert await move.move_keys() > 0
        await _post(other, project, 5)
        await _all_have(15, here, there)
        await move.move_keys()
        await move.end()
        await _post(one, project, 5)
        await _post(other, project, 5)
        await _all_have(25, here, there)
        assert await cluster.holder_of(keys.stream(project)) is target
        # Published there, and read there: not by the polls alone.
        await wait_until(lambda: _published(target, project, 25), what="the window")
        for log in (one, other):
            await wait_until(lambda log=log: _reads(log), what="the lanes")
        heard: list[str] = []
        other.tails.on_notice(lambda project, event, data: heard.append(event))
        await wait_until(lambda: _signal(one, project, heard), what="a signal by the new node")
    move = await cluster.begin_move(keys.stream(project), source)
    await move.move_keys()
    await move.end()


async def _published(server: RedisServer, project: str, seq: int) -> bool:
    newest = await redis_cli(server, "XREVRANGE", keys.stream(project), "+", "-", "COUNT", "1")
    return f"{seq}-0" in newest


def _reads(log: EventLog) -> bool:
    return log.health.redis_up and log.tails.lanes.stuck() == []


async def _signal(log: EventLog, project: str, heard: list[str]) -> bool:
    await log.tails.lanes.signal(project, "test.signal", b"{}")
    return "test.signal" in heard


async def _all_have(seq: int, *followers: Follower) -> None:
    for follower in followers:
        await follower.wait_seq(seq, timeout_s=20)
        assert follower.seqs == list(range(1, seq + 1))


async def test_a_node_dies_and_comes_back_empty(
    cluster: ClusterRedis, spread: list[str], open_log: OpenLog
) -> None:
    """G2, G7: its projects are served from the log, and their windows are filled again."""
    log = await open_log(redis_url=cluster.url)
    project, server = spread[2], cluster.nodes[2]
    async with following(log, project) as follower, following(log, spread[1]) as neighbour:
        await _post(log, project, 5)
        await follower.wait_seq(5)
        await asyncio.to_thread(server.kill)
        await _post(log, project, 5)
        await _post(log, spread[1], 5)
        await _all_have(10, follower)
        await _all_have(5, neighbour)
        await asyncio.to_thread(server.start)
        await cluster.wait_ok()
        await _post(log, project, 5)
        await _all_have(15, follower)
        await wait_until(lambda: _healed(server, project), timeout_s=20, what="the whole window")
        await wait_until(lambda: _reads(log), timeout_s=20, what="the lanes")


async def _healed(server: RedisServer, project: str) -> bool:
    return await _length(server, project) == 15
