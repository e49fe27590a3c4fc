"""Lanes: one blocked read per shard, woken for new tails, connected again after a failure."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

import pytest

from service.operate.embedded import RedisServer
from streams.model.events import encode
from streams.model.ids import EntryId
from streams.model.shards import shard_of
from streams.runtime.health import Health
from streams.runtime.observer import Observer
from streams.tail.lane import BLOCK_S
from streams.tail.lane_set import LaneSet
from streams.tail.tail import Tail
from streams.window.entries import SkippedEntries
from streams.window.redis_client import RedisClient
from streams.window.window import Entry, Run, Window
from tests.support.entries import message
from tests.support.waiting import wait_until

# Well below BLOCK_S: only a lane that was woken is this fast.
SOON_S = BLOCK_S / 2
_NOTHING = EntryId(0, 0)


class _World:
    """Lanes alone, without the heads poll that would deliver in their place."""

    def __init__(self, client: RedisClient, process_id: str) -> None:
        self.gaps: list[tuple[str, list[EntryId]]] = []
        self.signals: list[tuple[str, str, bytes]] = []
        self.health = Health(Observer())
        self.window = Window(client)
        self.lanes = LaneSet(
            client,
            process_id,
            self.health,
            SkippedEntries(Observer()),
            on_gap=self._gap,
            on_signal=lambda *signal: self.signals.append(signal),
        )

    def _gap(self, tail: Tail, entries: Sequence[Entry]) -> None:
        self.gaps.append((tail.project_id, [each.id for each in entries]))

    def follow(self, project: str, *, last: EntryId = _NOTHING) -> Tail:
        """Add a tail."""
        tail = Tail(project, last_seq=last.seq, position=last)
        self.lanes.add(tail)
        return tail

    async def publish(self, project: str, first: int, last: int) -> None:
        """Put messages into the stream."""
        data = [encode(message(seq, project_id=project)) for seq in range(first, last + 1)]
        result = await self.window.append(Run(project, first, data), "restart")
        assert result.status == "ok"

    async def reading(self, project: str) -> None:
        """Wait until the project's lane reads, and has for a moment."""
        shard = shard_of(project)
        await wait_until(lambda: shard in self._reading(), what="a lane that reads")

    def _reading(self) -> set[int]:
        return {shard for shard, lane in self.lanes._lanes.items() if lane.reading}


@contextlib.asynccontextmanager
async def _laning(client: RedisClient, process_id: str = "a1") -> AsyncIterator[_World]:
    world = _World(client, process_id)
    task = asyncio.create_task(world.lanes.run())
    await asyncio.sleep(0)
    try:
        yield world
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _of_one_shard(count: int, prefix: str) -> list[str]:
    """Ids of projects whose streams live in one shard."""
    found: list[str] = []
    number = 0
    while len(found) < count:
        project = f"{prefix}-{number}"
        if not found or shard_of(project) == shard_of(found[0]):
            found.append(project)
        number += 1
    return found


async def test_what_is_published_arrives(redis_client: RedisClient) -> None:
    """docs/design.md: a lane is blocked in XREAD on the streams that have readers here."""
    async with _laning(redis_client) as world:
        tail = world.follow("lane-arrives")
        await world.publish("lane-arrives", 1, 3)
        await wait_until(lambda: tail.last_seq == 3, timeout_s=SOON_S, what="three messages")


async def test_what_was_published_before_the_tail_was_added_arrives(
    redis_client: RedisClient,
) -> None:
    """docs/design.md: concrete ids, never `$`, so that nothing falls between two reads."""
    async with _laning(redis_client) as world:
        await world.publish("lane-before", 1, 3)
        tail = world.follow("lane-before")
        await wait_until(lambda: tail.last_seq == 3, timeout_s=SOON_S, what="three messages")


async def test_a_new_tail_is_read_while_the_lane_is_blocked(redis_client: RedisClient) -> None:
    """docs/design.md: a new tail wakes the lane."""
    one, two = _of_one_shard(2, "newcomer")
    async with _laning(redis_client) as world:
        first = world.follow(one)
        await world.publish(one, 1, 1)
        await wait_until(lambda: first.last_seq == 1, what="a lane that reads")
        await world.publish(two, 1, 2)
        second = world.follow(two)
        await wait_until(lambda: second.last_seq == 2, timeout_s=SOON_S, what="the messages")


async def test_many_new_tails_at_once_are_all_read(redis_client: RedisClient) -> None:
    """docs/design.md: one XREAD names many streams of a shard."""
    projects = _of_one_shard(20, "crowd")
    async with _laning(redis_client) as world:
        await asyncio.gather(*(world.publish(project, 1, 2) for project in projects))
        tails = [world.follow(project) for project in projects]
        await wait_until(
            lambda: all(tail.last_seq == 2 for tail in tails), timeout_s=SOON_S, what="all"
        )


async def test_a_removed_tail_is_no_longer_read(redis_client: RedisClient) -> None:
    """A lane reads only for projects that have readers here."""
    one, two = _of_one_shard(2, "leaving")
    async with _laning(redis_client) as world:
        staying, leaving = world.follow(one), world.follow(two)
        await world.publish(two, 1, 1)
        await wait_until(lambda: leaving.last_seq == 1, what="the first message")
        world.lanes.remove(leaving)
        await world.publish(two, 2, 2)
        await world.publish(one, 1, 1)
        await wait_until(lambda: staying.last_seq == 1, what="the message of the other project")
        await world.publish(one, 2, 2)
        await wait_until(lambda: staying.last_seq == 2, what="the next read")
        assert leaving.last_seq == 1


async def test_a_shard_without_readers_is_not_stuck(redis_client: RedisClient) -> None:
    """`/health` reports a shard as stuck when it has readers and is not being read."""
    async with _laning(redis_client) as world:
        tail = world.follow("idle")
        await world.reading("idle")
        world.lanes.remove(tail)
        assert world.lanes.stuck() == []


async def test_a_shard_is_read_again_when_a_reader_comes_back(redis_client: RedisClient) -> None:
    """A lane without tails is idle; the next tail starts it again."""
    async with _laning(redis_client) as world:
        tail = world.follow("again")
        await world.reading("again")
        world.lanes.remove(tail)
        tail = world.follow("again")
        await world.publish("again", 1, 1)
        await wait_until(lambda: tail.last_seq == 1, timeout_s=SOON_S, what="the message")


async def test_entries_that_do_not_meet_the_tail_are_reported_as_a_gap(
    redis_client: RedisClient,
) -> None:
    """I3: they are not shown before the messages between were fetched."""
    async with _laning(redis_client) as world:
        tail = world.follow("gap", last=EntryId(2, 0))
        await world.publish("gap", 5, 6)
        await wait_until(lambda: bool(world.gaps), what="the gap")
        assert world.gaps == [("gap", [EntryId(5, 0), EntryId(6, 0)])]
        assert tail.last_seq == 2


async def test_a_lane_reads_again_from_a_position_that_was_set_back(
    redis_client: RedisClient,
) -> None:
    """A tail that was filled from the log reads its transient entries again."""
    async with _laning(redis_client) as world:
        await world.publish("back", 1, 1)
        tail = world.follow("back", last=EntryId(1, 5))
        await world.reading("back")
        given = await world.window.append_transient(
            "back", "build.status", b"{}", head=0, newest_known=EntryId(0, 0)
        )
        assert given == EntryId(1, 1)
        world.lanes.reposition(tail, EntryId(1, 0))
        await wait_until(lambda: tail.end_index == 1, timeout_s=SOON_S, what="the entry")


async def test_signals_reach_every_process_and_are_not_replayed(
    redis_client: RedisClient,
) -> None:
    """§1: an ephemeral event is never stored, so a process that comes later does not get it."""
    async with _laning(redis_client) as one, _laning(redis_client, "b2") as two:
        for world in (one, two):
            world.follow("signals")
            await world.reading("signals")
        await one.lanes.signal("signals", "typing.start", b"{}")
        expected = [("signals", "typing.start", b"{}")]
        await wait_until(
            lambda: one.signals == two.signals == expected, timeout_s=SOON_S, what="the signal"
        )
        async with _laning(redis_client, "c3") as late:
            tail = late.follow("signals")
            await late.publish("signals", 1, 1)
            await wait_until(lambda: tail.last_seq == 1, what="a lane that reads")
            assert late.signals == []


async def test_a_lane_connects_again_after_a_restart_of_redis(own_redis: RedisServer) -> None:
    """docs/design.md: each lane is supervised, and `stuck` is part of readiness."""
    client = RedisClient(own_redis.url)
    try:
        async with _laning(client) as world:
            tail = world.follow("restart")
            await world.publish("restart", 1, 1)
            await wait_until(lambda: tail.last_seq == 1, what="the first message")
            assert world.lanes.stuck() == []
            await asyncio.to_thread(own_redis.kill)
            await wait_until(
                lambda: world.lanes.stuck() == [shard_of("restart")], what="a stuck lane"
            )
            await asyncio.to_thread(own_redis.start)
            await wait_until(lambda: world.lanes.stuck() == [], what="a lane that reads again")
            await world.publish("restart", 2, 2)
            await wait_until(lambda: tail.last_seq == 2, what="the next message")
    finally:
        await client.close()


async def test_a_lane_that_ends_by_a_bug_is_noticed(
    redis_client: RedisClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader task that dies silently would be an outage that nobody notices."""

    def broken(_: object) -> None:
        raise RuntimeError("a bug")

    world = _World(redis_client, "a1")
    task = asyncio.create_task(world.lanes.run())
    await asyncio.sleep(0)
    tail = world.follow("bug")
    monkeypatch.setattr(tail, "notify", broken, raising=False)
    await world.publish("bug", 1, 1)
    with pytest.raises(ExceptionGroup):
        await asyncio.wait_for(task, 10)
