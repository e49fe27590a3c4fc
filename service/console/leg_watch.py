"""Watches the legs of projects while a console asks: a ring for each, ended 15 s after the last
question.

Nobody asks as a rule: then no ring exists, no tail is held or listened to, and a broadcast compares
one attribute with None. What a ring keeps is in `leg_ring.py`.
"""

from __future__ import annotations

import asyncio
import time
import uuid

from service.console.leg_ring import LegRing
from service.http.api_errors import rate_limited
from service.streaming.broadcast import Broadcast
from service.streaming.open_streams import OpenStreams
from streams.eventlog import EventLog
from streams.model.errors import LogUnavailable
from streams.runtime.owned_tasks import end
from streams.runtime.single_flight import SingleFlight
from streams.tail.tail import Tail

MAX_WATCHED = 16
"""Projects that are watched at once in a process: each holds a tail and a ring."""
LASTS_S = 15.0
_BEGIN_TIMEOUT_S = 1.5


class LegWatch:
    """Fills the ring of one project from its tail and its broadcast."""

    def __init__(self, tail: Tail, streams: OpenStreams) -> None:
        self.id = uuid.uuid4().hex[:12]
        self.tail = tail
        self.ring = LegRing(lambda: time.time_ns() // 1000)
        self.asked_at_s = 0.0
        self._streams = streams
        self._index = tail.end_index
        self._broadcast: Broadcast | None = None
        self._attach()
        tail.listen(self._changed, _ignore)

    def close(self) -> None:
        """Stop listening."""
        self.tail.unlisten(self._changed, _ignore)
        if self._broadcast is not None:
            self._broadcast.on_write = None

    def _attach(self) -> None:
        """Have the project's broadcast tell what it writes; it may be another since last time."""
        self._broadcast = self._streams.broadcast_of(self.tail.project_id)
        if self._broadcast is not None:
            self._broadcast.on_write = self._written

    def _changed(self) -> None:
        self._attach()
        tail = self.tail
        first = max(self._index, tail.first_index)
        self._index = tail.end_index
        has_live = self._broadcast is not None and self._broadcast.has_live
        self.ring.arrived(first, tail.frames(first), has_live=has_live)

    def _written(self, first_index: int, end_index: int, connections: int, took_s: float) -> None:
        if self._index < end_index:
            # The broadcast heard of these entries first, and wrote them at once.
            self._changed()
        self.ring.written(first_index, end_index, connections, took_s)


class LegWatches:
    """The watches of this process. Each ends `LASTS_S` after the last question about it."""

    def __init__(self, log: EventLog, streams: OpenStreams) -> None:
        self._log = log
        self._streams = streams
        self._watches: dict[str, LegWatch] = {}
        self._beginning = SingleFlight[str, None]("watch legs")
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def __len__(self) -> int:
        return len(self._watches)

    async def watch(self, project_id: str) -> LegWatch:
        """Return the project's watch, begun if there is none, and prolong it.

        Raises:
            ApiError: 429, as many projects are watched as may be.
            ProjectNotFound: the log has no such project.
            LogUnavailable: no store can say where the project's tail begins.
        """
        watch = self._watches.get(project_id)
        if watch is None:
            if len(self._watches) + len(self._beginning.tasks()) >= MAX_WATCHED:
                raise rate_limited(LASTS_S, "Too many projects are being watched")
            await self._beginning.run(project_id, lambda: self._begin(project_id))
            watch = self._watches[project_id]
        watch.asked_at_s = asyncio.get_running_loop().time()
        return watch

    async def _begin(self, project_id: str) -> None:
        try:
            async with asyncio.timeout(_BEGIN_TIMEOUT_S):
                tail = await self._log.tails.acquire(project_id)
        except TimeoutError:
            raise LogUnavailable("no store says where the project is") from None
        loop = asyncio.get_running_loop()
        watch = self._watches[project_id] = LegWatch(tail, self._streams)
        watch.asked_at_s = loop.time()
        self._timers[project_id] = loop.call_at(loop.time() + LASTS_S, self._due, project_id)

    def _due(self, project_id: str) -> None:
        """End the watch, or look again when it is due after its newest question."""
        loop = asyncio.get_running_loop()
        until_s = self._watches[project_id].asked_at_s + LASTS_S
        if loop.time() < until_s:
            self._timers[project_id] = loop.call_at(until_s, self._due, project_id)
        else:
            self._end(project_id)

    def _end(self, project_id: str) -> None:
        self._timers.pop(project_id).cancel()
        watch = self._watches.pop(project_id)
        watch.close()
        self._log.tails.release(watch.tail)

    async def close(self) -> None:
        """End all watches."""
        await end(self._beginning.tasks())
        for project_id in list(self._watches):
            self._end(project_id)


def _ignore(frame: bytes) -> None:
    """Ephemeral events have no legs: they are in no store."""
