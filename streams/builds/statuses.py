"""Publishes builds' states: every change of status, and progress a few times a second.

The rows are authoritative. Each publish offers all changes of a build, and the append script skips
those that are in the window. So a later publish also appends what an earlier one could not.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable

from streams.builds.build_reader import BuildReader
from streams.model.build import Build, last_change
from streams.model.build_states import states
from streams.model.errors import LogUnavailable, StreamsError, WindowUnavailable
from streams.model.lru_map import LruMap
from streams.model.shards import shard_of
from streams.runtime.backoff import Backoff
from streams.runtime.health import Health
from streams.window.transient import TransientWriter

_log = logging.getLogger(__name__)

PROGRESS_EVERY_S = 0.4
_MAX_KNOWN = 10_000
_MAX_UNPUBLISHED = 10_000
_AT_ONCE = 8
_RETRY_FIRST_S = 0.25
_RETRY_MOST_S = 1.0


class _Published:
    __slots__ = ("at", "revision")

    def __init__(self, revision: int, at: float) -> None:
        self.revision = revision
        self.at = at


class Statuses:
    """Publishes the states of builds.

    `submit` returns at once. At most `_MAX_UNPUBLISHED` builds wait, each with its newest row only,
    which holds all its changes.
    """

    def __init__(self, writer: TransientWriter, builds: BuildReader, health: Health) -> None:
        self._writer = writer
        self._builds = builds
        self._health = health
        # In order of the first submission: a build that changes often does not lose its place.
        self._waiting: dict[str, Build] = {}
        self._published = LruMap[str, _Published](_MAX_KNOWN)
        self._unpublished: dict[str, None] = {}
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._returned = False
        self._backoff = Backoff(first_s=_RETRY_FIRST_S, most_s=_RETRY_MOST_S)
        health.on_redis_return(self._redis_returned)

    def submit(self, build: Build) -> None:
        """Publish the build's new states soon; mere progress may wait and be merged."""
        waiting = self._waiting.get(build.id)
        if waiting is None or waiting.revision < build.revision:
            self._waiting[build.id] = build
        if len(self._waiting) > _MAX_UNPUBLISHED:
            dropped = next(iter(self._waiting))
            del self._waiting[dropped]
            self._note_unpublished([dropped])
        self._idle.clear()
        self._wake.set()

    async def publish(self, build: Build, *, again: bool = False) -> bool:
        """Publish the build's new states now; return whether that succeeded.

        `again` offers it to the window even if this process has published it.
        """
        if again:
            self._published.pop(build.id)
        waiting = self._waiting.pop(build.id, None)
        if waiting is not None and waiting.revision > build.revision:
            build = waiting
        return await self._publish(build)

    async def drained(self) -> None:
        """Wait until one attempt was made for everything submitted so far."""
        await self._idle.wait()

    async def run(self) -> None:
        """Publish until cancelled."""
        while True:
            if not self._waiting and not self._returned:
                self._idle.set()
                await self._wake.wait()
            self._wake.clear()
            if self._returned:
                await self._publish_the_unpublished()
            due, wait_s = self._due()
            for start in range(0, len(due), _AT_ONCE):
                await asyncio.gather(*map(self._publish, due[start : start + _AT_ONCE]))
            if not due and wait_s is not None:
                try:
                    async with asyncio.timeout(wait_s):
                        await self._wake.wait()
                except TimeoutError:
                    pass

    def _due(self) -> tuple[list[Build], float | None]:
        """Take the builds that are due; also return the seconds until the next one is due."""
        now = time.monotonic()
        due = []
        wait_s: float | None = None
        for build in list(self._waiting.values()):
            published = self._published.peek(build.id)
            left_s = 0.0
            if published is not None and last_change(build) <= published.revision:
                left_s = published.at + PROGRESS_EVERY_S - now
            if left_s <= 0:
                due.append(build)
                del self._waiting[build.id]
            else:
                wait_s = left_s if wait_s is None else min(wait_s, left_s)
        return due, wait_s

    async def _publish(self, build: Build) -> bool:
        published = self._published.peek(build.id)
        known = 0 if published is None else published.revision
        if known >= build.revision:
            return True
        if not self._health.can_write(shard_of(build.project_id)):
            # Open streams get the state from the database (`build_watch.py`).
            self._note_unpublished([build.id])
            return False
        # All changes, also those that other processes made: one may have died before it published
        # its own.
        offered = states(build)
        try:
            await self._writer.append_states(build.project_id, build.id, offered)
        except WindowUnavailable:
            self._health.suspect()
            self._note_unpublished([build.id])
            return False
        except LogUnavailable:
            self._note_unpublished([build.id])
            return False
        except StreamsError as error:
            _log.warning(
                "build status not published", extra={"build_id": build.id, "error": str(error)}
            )
            return False
        self._published.put(build.id, _Published(build.revision, time.monotonic()))
        return True

    def _note_unpublished(self, build_ids: Iterable[str]) -> None:
        for build_id in build_ids:
            if len(self._unpublished) < _MAX_UNPUBLISHED:
                self._unpublished[build_id] = None

    def _redis_returned(self) -> None:
        self._returned = True
        # Redis may have lost what was published.
        self._published.clear()
        self._idle.clear()
        self._wake.set()

    async def _publish_the_unpublished(self) -> None:
        self._returned = False
        unpublished = list(self._unpublished)
        self._unpublished.clear()
        try:
            for build in await self._builds.by_ids(unpublished) if unpublished else ():
                waiting = self._waiting.get(build.id)
                if waiting is None or waiting.revision < build.revision:
                    self._waiting[build.id] = build
        except StreamsError:
            self._note_unpublished(unpublished)
            self._returned = True
            await asyncio.sleep(self._backoff.next_s())
        else:
            self._backoff.reset()
