"""The lanes of this process: one per shard that has readers, and the task group that runs them.

Also sends signals (ephemeral events and notices) to the lanes of all processes. How one lane reads
is in `lane.py`.
"""

from __future__ import annotations

import asyncio

from streams.model.ids import EntryId
from streams.model.shards import shard_of
from streams.runtime.health import Health
from streams.tail.lane import Lane, LaneContext, OnGap, OnSignal
from streams.tail.tail import Tail
from streams.window import keys
from streams.window.entries import SkippedEntries
from streams.window.lua import script
from streams.window.redis_client import RedisClient

_OPENINGS_AT_ONCE = 16
# Signals are for processes that read now; a process that is late misses them.
_SIGNALS_KEPT = 256
_SIGNALS_EXPIRY_MS = 60_000


class LaneSet:
    """The lanes of this process, each made when its shard first has a reader."""

    def __init__(
        self,
        client: RedisClient,
        process_id: str,
        health: Health,
        skipped: SkippedEntries,
        *,
        on_gap: OnGap,
        on_signal: OnSignal,
    ) -> None:
        self._client = client
        self._health = health
        self._context = LaneContext(
            client=client,
            process_id=process_id,
            health=health,
            skipped=skipped,
            openings=asyncio.Semaphore(_OPENINGS_AT_ONCE),
            on_gap=on_gap,
            on_signal=on_signal,
        )
        self._lanes: dict[int, Lane] = {}
        self._group: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Run the lanes until cancelled; raise when one of them ends by an error."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            for lane in self._lanes.values():
                group.create_task(lane.run(), name=f"lane {lane.shard}")
            await asyncio.Event().wait()

    def add(self, tail: Tail) -> None:
        """Read the tail's stream from its position on."""
        shard = shard_of(tail.project_id)
        lane = self._lanes.get(shard)
        if lane is None:
            lane = self._lanes[shard] = Lane(shard, self._context)
            if self._group is not None:
                self._group.create_task(lane.run(), name=f"lane {shard}")
        lane.add(tail)

    def remove(self, tail: Tail) -> None:
        """Stop reading the tail's stream."""
        shard = shard_of(tail.project_id)
        lane = self._lanes[shard]
        lane.remove(tail)
        if not lane.has_readers:
            self._health.lane_unused(shard)

    def reposition(self, tail: Tail, position: EntryId) -> None:
        """Read the tail's stream again from an earlier position."""
        # A new object, even if it is equal: what a read in progress returns is then dropped.
        tail.position = EntryId(*min(tail.position, position))
        self._lanes[shard_of(tail.project_id)].wake()

    def with_readers(self) -> list[int]:
        """Return the shards that have readers here."""
        return [lane.shard for lane in self._lanes.values() if lane.has_readers]

    def stuck(self) -> list[int]:
        """Return the shards that have readers here and are not being read."""
        return [lane.shard for lane in self._lanes.values() if lane.stuck]

    async def signal(self, project_id: str, event: str, data: bytes) -> None:
        """Send an ephemeral event or a notice to all processes that read the project's shard.

        Delivered at most once, never stored for later. Raises `WindowUnavailable`.
        """
        key = keys.signals(shard_of(project_id))
        await self._client.run(
            script("add_expiring"), key, "~", _SIGNALS_KEPT, _SIGNALS_EXPIRY_MS,
            "project", project_id, "event", event, "data", data,
        )  # fmt: skip
