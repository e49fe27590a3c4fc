"""Delivers builds' states from the database when Redis did not, and to streams that open.

A poll finds states that were committed and did not arrive through Redis (Redis is down, or a worker
died between commit and publish). While Redis is down it puts them into the tails, else it publishes
them again. A stream that opens gets the states of the unfinished builds.
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
from streams.model.lru_map import LruMap
from streams.model.shards import shard_of
from streams.runtime.health import Health
from streams.runtime.owned_tasks import end
from streams.tail.registry import TailRegistry
from streams.tail.tail import Tail

_POLL_S = 1.0
_POLL_WITHOUT_REDIS_S = 0.2
# A state that was committed so recently may still be on its way through Redis.
_GRACE_S = 1.0
# Longer than a transaction may last: `updated_at` is the time when it began.
_LOOK_BACK_S = 15.0
_TIMEOUT_S = 2.0
_SNAPSHOT_TIMEOUT_S = 1.0
_SNAPSHOT_FRESH_S = 1.0
# How long a stream that opens waits for the read; after that it gets what was known before.
_PATIENCE_S = 0.5
# A tail may miss a state that was published so shortly before it was made.
_SLACK_S = 1.0
_MAX_SEEN = 1000
_HEAD = b"event: build.status\n"


class _Seen(msgspec.Struct):
    """The newest state of a build that came through the tail; `frame` is None once it has ended."""

    revision: int
    frame: bytes | None


class _FollowedTail:
    """One tail: the states that came through it, and the unfinished builds as last read."""

    __slots__ = ("builds", "index", "made_at", "offered", "read_at", "seen", "tail")

    def __init__(self, tail: Tail) -> None:
        self.tail = tail
        self.made_at = time.monotonic()
        # Revisions that were published again, but had not arrived here by then.
        self.offered: dict[str, int] = {}
        self.index = tail.end_index
        self.seen = LruMap[str, _Seen](_MAX_SEEN)
        self.builds: list[State] = []
        self.read_at = float("-inf")
        tail.listen(self.look, _ignore)

    def close(self) -> None:
        self.tail.unlisten(self.look, _ignore)

    def look(self) -> None:
        """Record the builds' states among the new entries of the tail."""
        tail = self.tail
        start, self.index = max(self.index, tail.first_index), tail.end_index
        for frame in tail.frames(start):
            if frame.startswith(_HEAD):
                self._note(frame)

    def _note(self, frame: bytes) -> None:
        state = read_build_status(sse.data_of(frame))
        if state is not None and state[1] > 0:
            self._saw(*state, frame)

    def note(self, build: Build) -> None:
        """Record that the window has the build's state."""
        self._saw(build.id, build.revision, build.ended, _framed(build).data)

    def _saw(self, build_id: str, revision: int, ended: bool, frame: bytes) -> None:
        seen = self.seen.peek(build_id)
        if seen is None or seen.revision < revision:
            self.seen.put(build_id, _Seen(revision, None if ended else frame))

    def revision(self, build_id: str) -> int:
        seen = self.seen.peek(build_id)
        return 0 if seen is None else seen.revision

    def unfinished(self) -> list[tuple[str, int, bytes]]:
        """Return build, revision and frame of each unfinished build: the newer of read and seen."""
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
    """Follows the tails of this process, and polls the builds of their projects."""

    def __init__(
        self, tails: TailRegistry, builds: BuildReader, statuses: Statuses, health: Health
    ) -> None:
        self._tails = tails
        self._builds = builds
        self._statuses = statuses
        self._health = health
        self._followed: dict[str, _FollowedTail] = {}
        self._reading: asyncio.Task[None] | None = None
        self._wanted: set[str] = set()
        self._polled_at = time.monotonic()
        self._redis_was_up = True
        self._down_since = 0.0
        tails.watch(self._made, self._dropped)

    def _made(self, tail: Tail) -> None:
        self._followed[tail.project_id] = _FollowedTail(tail)

    def _dropped(self, tail: Tail) -> None:
        self._followed.pop(tail.project_id).close()

    # For streams that open.

    async def unfinished(self, tail: Tail) -> list[tuple[str, int, bytes]]:
        """Return build, revision and `build.status` frame of the project's unfinished builds.

        They are read from the database at most about once a second for all callers, and may be as
        old as that; older, or empty, while it does not answer.
        """
        followed = self._followed.get(tail.project_id)
        if followed is None:
            return []
        if time.monotonic() - followed.read_at > _SNAPSHOT_FRESH_S and self._health.postgres_up:
            self._wanted.add(tail.project_id)
            if self._reading is None:
                # In a task: a stream that is closed must not cancel the read for the others.
                self._reading = asyncio.create_task(self._read(), name="read unfinished builds")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_PATIENCE_S):
                    while tail.project_id in self._wanted and self._reading is not None:
                        await asyncio.shield(self._reading)
        return followed.unfinished()

    async def _read(self) -> None:
        try:
            while self._wanted:
                # Requests of the same moment are read together, for all their projects.
                await asyncio.sleep(0)
                project_ids = list(self._wanted)
                found: dict[str, list[State]] = {project_id: [] for project_id in project_ids}
                try:
                    async with asyncio.timeout(_SNAPSHOT_TIMEOUT_S):
                        for build in await self._builds.unfinished(project_ids):
                            found[build.project_id].append(_framed(build))
                except (StreamsError, TimeoutError):
                    found = {}
                now = time.monotonic()
                for project_id in project_ids:
                    followed = self._followed.get(project_id)
                    if followed is not None:
                        followed.read_at = now
                        followed.builds = found.get(project_id, followed.builds)
                self._wanted.difference_update(project_ids)
        finally:
            self._wanted.clear()
            self._reading = None

    # Polling.

    async def run(self) -> None:
        """Poll until cancelled."""
        while True:
            await asyncio.sleep(_POLL_S if self._health.delivers else _POLL_WITHOUT_REDIS_S)
            await self.once()

    async def once(self) -> None:
        """Poll once: deliver the states that did not come through the tails."""
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
                        _put_into_tail(followed, build)
                    elif age_s > _GRACE_S:
                        await self._offer(followed, build, age_s)
        self._redis_was_up = redis_up
        self._polled_at = now

    async def _offer(self, followed: _FollowedTail, build: Build, age_s: float) -> None:
        """Publish a state that did not arrive; at the next poll, put it into the tail itself.

        The window may have appended it below the position up to which its readers have read: that
        happens after it went back in time (restored from a backup, or failed over).
        """
        if followed.offered.pop(build.id, 0) == build.revision:
            _put_into_tail(followed, build)
        elif await self._statuses.publish(build, again=True):
            if age_s > time.monotonic() - followed.made_at + _SLACK_S:
                # It was in the window before this tail was made.
                followed.note(build)
            else:
                followed.offered[build.id] = build.revision

    async def close(self) -> None:
        """End the read in progress."""
        if self._reading is not None:
            await end([self._reading])


def _framed(build: Build) -> State:
    state = current(build)
    return State(state.build_id, state.revision, sse.event_frame("build.status", state.data))


def _put_into_tail(followed: _FollowedTail, build: Build) -> None:
    """Put the states that did not arrive through Redis into the tail. They have no entryId."""
    tail = followed.tail
    known = followed.revision(build.id)
    for state in states(build):
        if state.revision > known:
            tail.put("build.status", state.data)
    tail.notify()
