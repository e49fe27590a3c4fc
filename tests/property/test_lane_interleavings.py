"""Lane, tails, appends and readers in every order that a seeded scheduler produces.

Real `TailRegistry` and `LaneSet` over servers in memory, in virtual time: each seed decides how
long every step takes. A failure names its seed, and the seed repeats it.
"""

from __future__ import annotations

import asyncio
import os
from random import Random
from typing import cast

import pytest

from streams.log.database import Database
from streams.log.log import Log, Slice
from streams.model.errors import LogUnavailable
from streams.model.ids import EntryId
from streams.model.shards import shard_of
from streams.runtime.health import Health
from streams.runtime.observer import Observer
from streams.tail.gap_filler import GapFiller
from streams.tail.lane import BLOCK_S
from streams.tail.lane_set import LaneSet
from streams.tail.registry import TailRegistry
from streams.tail.signal_fanout import SignalFanout
from streams.tail.tail import Tail
from streams.tail.tail_factory import TailFactory
from streams.window.entries import SkippedEntries
from streams.window.publisher import Publisher
from streams.window.redis_client import RedisClient
from streams.window.window import How, Window
from tests.support.entries import ids_of, message
from tests.support.fake_redis import FakeRedis
from tests.support.virtual_time import run_in_virtual_time

SEEDS = int(os.environ.get("SEQSTREAM_INTERLEAVINGS", "1000"))
_BATCH = 250
# Well below BLOCK_S: what arrived by then did not wait for a read to time out.
_SOON_S = BLOCK_S / 2


def _of_one_shard(count: int) -> list[str]:
    found: list[str] = []
    number = 0
    while len(found) < count:
        if shard_of(f"p{number}") == shard_of(found[0] if found else "p0"):
            found.append(f"p{number}")
        number += 1
    return found


_PROJECTS = _of_one_shard(3)


class _MemoryLog(Log):
    """Heads of projects; message n is the same for every reader. Reads fail now and then."""

    def __init__(self, server: FakeRedis, random: Random) -> None:
        super().__init__(cast("Database", None))
        self.head_of = dict.fromkeys(_PROJECTS, 0)
        self._server = server
        self._random = random

    async def head(self, project_id: str) -> int:
        await self._server.on_the_way()
        return self.head_of[project_id]

    async def slice(
        self,
        project_id: str,
        *,
        after: int,
        before: int = 2**53,
        limit: int,
        descending: bool = False,
        max_bytes: int = 0,
    ) -> Slice:
        await self._server.on_the_way()
        if self._random.random() < 0.4:
            raise LogUnavailable("away")
        last = min(self.head_of[project_id], before - 1)
        seqs = range(last, after, -1) if descending else range(after + 1, last + 1)
        found = [message(seq, project_id=project_id) for seq in seqs[:limit]]
        await self._server.on_the_way()
        return Slice(found, False)


class _MemoryWindow(Window):
    def __init__(self, server: FakeRedis) -> None:
        super().__init__(cast("RedisClient", server))
        self._server = server

    async def last_id(self, project_id: str) -> EntryId | None:
        await self._server.on_the_way()
        found = self._server.last_id(project_id)
        await self._server.on_the_way()
        return found


class _Healer(Publisher):
    """A publisher that publishes what the log has, in one step."""

    def __init__(self, server: FakeRedis, log: _MemoryLog) -> None:
        self._server = server
        self._memory = log

    def heal(self, project_id: str, how: How = "restart") -> None:
        last = self._server.last_id(project_id)
        for seq in range((last.seq if last else 0) + 1, self._memory.head_of[project_id] + 1):
            self._server.publish(project_id, seq)


class _Session:
    """One reader, from the time it holds the tail."""

    def __init__(self, tail: Tail) -> None:
        self.tail = tail
        self.first_seq = tail.last_seq
        self.shown: list[EntryId] = []
        self.owed: list[EntryId] = []
        self._index = tail.end_index
        tail.listen(self._look, _ignore)

    def _look(self) -> None:
        self.shown += ids_of(self.tail.frames(self._index))
        self._index = self.tail.end_index

    def leave(self) -> None:
        self.tail.unlisten(self._look, _ignore)

    def lacks(self, head: int) -> str | None:
        """Return what is missing, if anything, once everything up to head was published."""
        seqs = [each.seq for each in self.shown if each.k == 0]
        # A process may have died before it published the last ones; the heads poll, which does
        # not run here, would find those.
        expected = list(range(self.first_seq + 1, max([head, *seqs]) + 1))
        if seqs != expected:
            return f"messages {seqs}, not {expected}"
        missing = [str(each) for each in self.owed if each not in self.shown]
        return f"transient entries {missing} never came" if missing else None


def _ignore(_: bytes) -> None:
    pass


class _World:
    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.server = FakeRedis(self.random)
        self.log = _MemoryLog(self.server, self.random)
        self.healer = _Healer(self.server, self.log)
        health, observer = Health(Observer()), Observer()
        window = _MemoryWindow(self.server)
        filler, signals = GapFiller(self.log, self.healer, observer), SignalFanout()
        lanes = LaneSet(
            cast("RedisClient", self.server),
            "a1",
            health,
            SkippedEntries(observer),
            on_gap=filler.gap_found,
            on_signal=signals.received,
        )
        filler.on_reread(lanes.reposition)
        factory = TailFactory(window, self.log, self.healer, health)
        self.tails = TailRegistry(factory, lanes, filler, signals, memory_bytes=2**30, linger_s=-1)
        self.sessions: list[_Session] = []

    async def pause(self, most_s: float) -> None:
        await asyncio.sleep(self.random.random() * most_s)

    def times(self) -> range:
        """Return how often an actor acts: often, seldom or never.

        Seldom and never matter: without later traffic nothing hides a lost entry.
        """
        return range(self.random.choice((0, 0, 1, 2, 8)))

    async def write(self, project: str) -> None:
        """Commit and publish; sometimes die in between, and the next publish heals."""
        for _ in self.times():
            await self.pause(0.1)
            self.log.head_of[project] += 1
            await self.pause(0.02)
            if self.random.random() < 0.8:
                self.healer.heal(project)

    async def append(self, project: str) -> None:
        for _ in self.times():
            await self.pause(0.06)
            entry_id = self.server.append_transient(project)
            if entry_id is not None:
                for session in self.sessions:
                    if session.tail.project_id == project:
                        session.owed.append(entry_id)

    async def come_and_go(self, project: str) -> None:
        for _ in range(self.random.choice((1, 1, 2, 4))):
            await self.pause(0.15)
            tail = await self.tails.acquire(project)
            session = _Session(tail)
            self.sessions.append(session)
            await self.pause(0.3)
            if self.random.random() < 0.4:
                self.sessions.remove(session)
                session.leave()
                self.tails.release(tail)
                if self.random.random() < 0.7:
                    self.tails.sweep()

    async def lose_stream(self, project: str) -> None:
        """Lose the stream and an unpublished commit; the next commit starts the stream again."""
        for _ in range(self.random.choice((0, 0, 1))):
            await self.pause(0.2)
            self.server.lose(project)
            for session in self.sessions:
                if session.tail.project_id == project:
                    session.owed = [each for each in session.owed if each in session.shown]
            self.log.head_of[project] += 2
            self.server.publish(project, self.log.head_of[project])

    async def lose_connections(self) -> None:
        for _ in range(self.random.choice((0, 0, 1, 2))):
            await self.pause(0.4)
            for connection in self.server.connections:
                connection.break_()

    async def run(self) -> None:
        lanes = asyncio.create_task(self.tails.lanes.run())
        async with asyncio.TaskGroup() as actors:
            actors.create_task(self.lose_connections())
            for project in _PROJECTS:
                for act in (self.write, self.append, self.come_and_go, self.lose_stream):
                    actors.create_task(act(project))
        await asyncio.sleep(_SOON_S)
        assert not lanes.done(), lanes
        for session in self.sessions:
            last = self.server.last_id(session.tail.project_id)
            wrong = session.lacks(session.first_seq if last is None else last.seq)
            assert wrong is None, f"{session.tail.project_id}: {wrong}"
        lanes.cancel()
        await asyncio.gather(lanes, return_exceptions=True)
        await self.tails.close()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("first", range(0, SEEDS, _BATCH))
def test_nothing_is_left_unread_in_any_order_of_steps(first: int) -> None:
    """G3, G6: messages in order, transient entries at least once, none after a read timed out."""
    for seed in range(first, min(first + _BATCH, SEEDS)):
        try:
            run_in_virtual_time(_World(seed).run())
        except BaseException as error:
            raise AssertionError(f"seed {seed}: {error}") from error
