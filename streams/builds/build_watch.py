"""What this process's readers know of builds, and what they must be told from the database.

A status that was committed and did not come through Redis (Redis is away, a worker died between
commit and publishing) is found by a poll: while Redis is away it is put into the tails, else
published again. A stream that opens is told of the unfinished builds.
"""

from __future__ import annotations

import asyncio
import contextlib
import time

import msgspec

from streams.builds.build_reader import BuildReader
from streams.builds.statuses import Statuses
from streams.model import sse
from streams.model.build import Build
from streams.model.build_states import State, current, read_build_status, states
from streams.model.errors import StreamsError
from streams.model.ids import EntryId
from streams.model.lru_map import LruMap
from streams.model.shards import shard_of
from streams.runtime.health import Health
from streams.runtime.owned_tasks import end
from streams.tail.registry import TailRegistry
from streams.tail.tail import Tail
from streams.window.window import Entry

_POLL_S = 1.0
_POLL_WITHOUT_REDIS_S = 0.2
# A status that was committed just now is still on its way through Redis.
_GRACE_S = 1.0
# More than a transaction may last: `updated_at` is when it began.
_LOOK_BACK_S = 15.0
_TIMEOUT_S = 2.0
_SNAPSHOT_TIMEOUT_S = 1.0
_SNAPSHOT_FRESH_S = 1.0
# How long a stream that opens waits for it: then what was known before has to do.
_PATIENCE_S = 0.5
# A status that was published just before a tail was made may be one that it was made too late for.
_SLACK_S = 1.0
_MAX_SEEN = 1000
_HEAD = b"event: build.status\n"


class _Seen(msgspec.Struct):
    """What came through the tail of one build; `frame` is none once it has ended."""

    revision: int
    frame: bytes | None


class _Followed:
    """One tail: the states that came through it, and the unfinished builds as last read."""

    __slots__ = ("builds", "index", "made_at", "offered", "read_at", "seen", "tail")

    def __init__(self, tail: Tail) -> None:
        self.tail = tail
        self.made_at = time.monotonic()
        # Revisions that stand in the window, and were not seen here when that was found.
        self.offered: dict[str, int] = {}
        self.index = tail.end_index
        self.seen = LruMap[str, _Seen](_MAX_SEEN)
        self.builds: list[State] = []
        self.read_at = float("-inf")
        tail.listen(self.look, _ignore)

    def close(self) -> None:
        self.tail.unlisten(self.look, _ignore)

    def look(self) -> None:
        """Note the builds' states among the entries that came."""
        tail = self.tail
        start, self.index = max(self.index, tail.first_index), tail.end_index
        for frame in tail.frames(start):
            if frame.startswith(_HEAD):
                self._note(frame)

    def _note(self, frame: bytes) -> None:
        told = read_build_status(sse.data_of(frame))
        if told is not None and told[1] > 0:
            self._saw(*told, frame)

    def note(self, build: Build) -> None:
        """Note that the build's state stands in the window."""
        self._saw(build.id, build.revision, build.ended, _framed(build).data)

    def _saw(self, build_id: str, revision: int, ended: bool, frame: bytes) -> None:
        seen = self.seen.peek(build_id)
        if seen is None or seen.revision < revision:
            self.seen.put(build_id, _Seen(revision, None if ended else frame))

    def revision(self, build_id: str) -> int:
        seen = self.seen.peek(build_id)
        return 0 if seen is None else seen.revision

    def unfinished(self) -> list[tuple[str, int, bytes]]:
        """Build, revision and frame of each unfinished build: the newer of read and seen."""
        found = {
            state.build_id: (state.build_id, state.revision, state.data) for state in self.builds
        }
        for build_id in self.seen:
            seen = self.seen.peek(build_id)
            if seen is None or (build_id in found and found[build_id][1] > seen.revision):
                continue
            if seen.frame is None:
                found.pop(build_id, None)
            else:
                found[build_id] = (build_id, seen.revision, seen.frame)
        return list(found.values())


def _ignore(_: bytes) -> None:
    pass


class BuildWatch:
    """Follows the tails of this process."""

    def __init__(
        self, tails: TailRegistry, builds: BuildReader, statuses: Statuses, health: Health
    ) -> None:
        self._tails = tails
        self._builds = builds
        self._statuses = statuses
        self._health = health
        self._followed: dict[str, _Followed] = {}
        self._reading: asyncio.Task[None] | None = None
        self._wanted: set[str] = set()
        self._polled_at = time.monotonic()
        self._redis_was_up = True
        self._down_since = 0.0
        tails.watch(self._made, self._dropped)

    def _made(self, tail: Tail) -> None:
        self._followed[tail.project_id] = _Followed(tail)

    def _dropped(self, tail: Tail) -> None:
        self._followed.pop(tail.project_id).close()

    # For streams that open.

    async def unfinished(self, tail: Tail) -> list[tuple[str, int, bytes]]:
        """Return build, revision and `build.status` frame of the project's unfinished builds.

        As they are now, to the best of this process's knowledge; read from the database at most
        about once a second, for all who ask. Empty when it does not answer.
        """
        followed = self._followed.get(tail.project_id)
        if followed is None:
            return []
        if time.monotonic() - followed.read_at > _SNAPSHOT_FRESH_S and self._health.postgres_up:
            self._wanted.add(tail.project_id)
            if self._reading is None:
                # Its own task: a stream that is closed meanwhile must not end it for the others.
                self._reading = asyncio.create_task(self._read(), name="read unfinished builds")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_PATIENCE_S):
                    while tail.project_id in self._wanted and self._reading is not None:
                        await asyncio.shield(self._reading)
        return followed.unfinished()

    async def _read(self) -> None:
        try:
            while self._wanted:
                # What is asked for together is read together, whatever the projects.
                await asyncio.sleep(0)
                asked = list(self._wanted)
                found: dict[str, list[State]] = {project_id: [] for project_id in asked}
                try:
                    async with asyncio.timeout(_SNAPSHOT_TIMEOUT_S):
                        for build in await self._builds.unfinished(asked):
                            found[build.project_id].append(_framed(build))
                except (StreamsError, TimeoutError):
                    found = {}
                now = time.monotonic()
                for project_id in asked:
                    followed = self._followed.get(project_id)
                    if followed is not None:
                        followed.read_at = now
                        followed.builds = found.get(project_id, followed.builds)
                self._wanted.difference_update(asked)
        finally:
            self._wanted.clear()
            self._reading = None

    # Polling.

    async def run(self) -> None:
        """Poll for ever."""
        while True:
            await asyncio.sleep(_POLL_S if self._health.delivers else _POLL_WITHOUT_REDIS_S)
            await self.once()

    async def once(self) -> None:
        """Poll once: tell the readers what they have not been told."""
        redis_up = self._health.redis_up
        now = time.monotonic()
        if self._redis_was_up and not redis_up:
            self._down_since = self._polled_at
        returned = redis_up and not self._redis_was_up
        within_s = _LOOK_BACK_S + now - (self._down_since if returned else self._polled_at)
        if self._followed:
            try:
                async with asyncio.timeout(_TIMEOUT_S):
                    changed = await self._builds.changed(list(self._followed), within_s=within_s)
            except (StreamsError, TimeoutError):
                # The next poll looks further back.
                return
            for build, age_s in changed:
                followed = self._followed.get(build.project_id)
                if followed is None:
                    continue
                if returned:
                    self._statuses.submit(build)
                elif followed.revision(build.id) < build.revision:
                    if not self._health.delivers_to(shard_of(build.project_id)):
                        _tell(followed, build)
                    elif age_s > _GRACE_S:
                        await self._offer(followed, build, age_s)
        self._redis_was_up = redis_up
        self._polled_at = now

    async def _offer(self, followed: _Followed, build: Build, age_s: float) -> None:
        """Publish a state that did not come through the tail; tell it, if it still does not come.

        It may stand in the window where nobody reads any more: a window that went back in time
        (restored, failed over) takes entries below what its readers have read.
        """
        if followed.offered.pop(build.id, 0) == build.revision:
            _tell(followed, build)
        elif await self._statuses.publish(build, again=True):
            if age_s > time.monotonic() - followed.made_at + _SLACK_S:
                # It stood in the window since before this tail was made.
                followed.note(build)
            else:
                followed.offered[build.id] = build.revision

    async def close(self) -> None:
        """End the read under way."""
        if self._reading is not None:
            await end([self._reading])


def _framed(build: Build) -> State:
    state = current(build)
    return State(state.build_id, state.revision, sse.event_frame("build.status", state.data))


def _tell(followed: _Followed, build: Build) -> None:
    """Put the states that did not come through Redis into the tail. They have no entryId."""
    tail = followed.tail
    known = followed.revision(build.id)
    position = tail.position
    # It stands where the stream was read up to: nothing that Redis brings later is before it.
    entry_id = EntryId(tail.last_seq, position.k if position.seq == tail.last_seq else 0)
    entry_id = EntryId(entry_id.seq, max(1, entry_id.k))
    for state in states(build):
        if state.revision > known:
            tail.offer(Entry(entry_id, "build.status", state.data, time.time_ns() // 1000))
    tail.notify()
