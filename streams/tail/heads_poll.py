"""The heads poll: makes every lost wake-up, crash and outage harmless.

At an interval, one query reads the heads of the projects that have readers here; a tail that is
behind is filled from the log and its window healed. While a part of the way through Redis is broken
(a server takes no writes, a lane does not read) the same poll runs every 100 ms and delivers for
the shards concerned. Whether something is an outage is decided in `streams/runtime/health.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time

from streams.log.log import Log
from streams.model.errors import StreamsError, WindowUnavailable
from streams.model.ids import EntryId
from streams.model.shards import shard_of
from streams.runtime.health import Health
from streams.runtime.observer import Observer
from streams.tail.gap_filler import GapFiller
from streams.tail.registry import TailRegistry
from streams.tail.tail import Tail
from streams.window.publisher import Publisher
from streams.window.window import Window

_log = logging.getLogger(__name__)

_WITHOUT_REDIS_S = 0.1
# A message committed just now is still on its way through Redis: it gets this long.
_GRACE_S = 0.1
_TIMEOUT_S = 2.0
# How long a poll may wait for Redis: a Redis that hangs must not delay the next poll.
_LOOK_S = 0.2


class HeadsPoll:
    """Compares every tail with the head of its project."""

    def __init__(
        self,
        tails: TailRegistry,
        filler: GapFiller,
        log: Log,
        window: Window,
        publisher: Publisher,
        health: Health,
        observer: Observer,
        *,
        interval_s: float,
    ) -> None:
        self._tails = tails
        self._filler = filler
        self._log = log
        self._window = window
        self._publisher = publisher
        self._health = health
        self._observer = observer
        self._interval_s = interval_s
        self._last_looked_at = 0
        # When Postgres last answered, or there was nothing to poll for; monotonic time.
        self.polled_at_s = float("-inf")
        health.on_redis_return(self._heal_windows)

    async def run(self) -> None:
        """Poll until cancelled."""
        while True:
            await asyncio.sleep(
                self._interval_s
                if self._health.delivers
                else min(_WITHOUT_REDIS_S, self._interval_s)
            )
            self._tails.sweep()
            await self.once()

    async def once(self) -> None:
        """Poll once: fill the tails that are behind."""
        tails = self._tails.all()
        if not tails:
            # Else the gauge would keep the lag that the last tail had when it was dropped.
            self._observer.lagging(0)
            self.polled_at_s = time.monotonic()
            return
        known = {tail.project_id: tail.last_seq for tail in tails}
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                heads = await self._log.heads_unlike(list(known), list(known.values()))
        except (StreamsError, TimeoutError):
            # The Postgres probe decides whether that is an outage, and logs it once.
            return
        self.polled_at_s = time.monotonic()
        behind = self._behind(known, heads)
        self._observer.lagging(max((head - tail.last_seq for tail, head in behind), default=0))
        if behind:
            await self._catch_up(behind)
        await self._find_lost_streams(tails)

    def _behind(self, known: dict[str, int], heads: dict[str, int]) -> list[tuple[Tail, int]]:
        """Return the tails behind their heads; restart those that are beyond a restored log.

        `known` is what the tails had before the heads were read.
        """
        behind: list[tuple[Tail, int]] = []
        for project_id, head in heads.items():
            tail = self._tails.get(project_id)
            if tail is None:
                continue
            if head < known[project_id]:
                # The head was read after the tail had more: the log lost messages (it was
                # restored from a backup).
                _log.warning(
                    "the log is behind what was delivered",
                    extra={
                        "project_id": project_id, "head": head, "delivered": known[project_id],
                    },
                )  # fmt: skip
                self._filler.restart(tail, head)
            elif head > tail.last_seq:
                behind.append((tail, head))
        return behind

    async def _catch_up(self, behind: list[tuple[Tail, int]]) -> None:
        health = self._health
        on_their_way = []
        for tail, head in behind:
            if health.delivers_to(shard_of(tail.project_id)):
                on_their_way.append((tail, head))
            else:
                self._observer.gap_found()
                self._filler.fill(tail)
        if not on_their_way:
            return
        await asyncio.sleep(_GRACE_S)
        for tail, head in on_their_way:
            if tail.last_seq < head:
                self._observer.gap_found()
                self._filler.fill(tail)
                if health.can_write(shard_of(tail.project_id)):
                    self._publisher.heal(tail.project_id)

    async def _find_lost_streams(self, tails: list[Tail]) -> None:
        """Find streams that end below the position their lane has read to.

        Either the stream was lost and began again: then only transient entries can be missed,
        because a new message always has a higher id. Or an entry that no writer of the service
        made took the lane beyond the log.
        """
        suspects = [
            tail
            for tail in tails
            if (tail.position.k or tail.position.seq > tail.last_seq)
            and self._health.can_read(shard_of(tail.project_id))
        ]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_S):
                for _ in suspects:
                    # Continues where the last poll had to stop.
                    self._last_looked_at = (self._last_looked_at + 1) % len(suspects)
                    if not await self._check_stream(suspects[self._last_looked_at]):
                        return

    async def _check_stream(self, tail: Tail) -> bool:
        """Have a stream read again that ends below its lane's position.

        Returns whether Redis answered.
        """
        position = tail.position
        try:
            last = await self._window.last_id(tail.project_id)
        except WindowUnavailable:
            self._health.suspect()
            return False
        if last is None or last < position:
            self._tails.lanes.reposition(tail, EntryId(min(position.seq, tail.last_seq), 0))
        elif position.seq > tail.last_seq:
            # It ends with what the log does not have, or what is not in the tail yet: the heal
            # decides.
            self._publisher.heal(tail.project_id)
        return True

    def _heal_windows(self) -> None:
        self._publisher.heal_later(tail.project_id for tail in self._tails.all())
