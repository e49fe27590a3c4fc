"""Lanes: one blocked XREAD per shard, over the streams that have readers in this process.

Always concrete ids, never `$`: nothing falls between two reads. A lane that fails backs off with
jitter and connects anew; a lane that is not reading is seen in `reading`. What an entry means to a
tail, and how a gap is filled, is decided elsewhere (`tail.py`, `tails.py`).
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from typing import Any

from streams import keys
from streams.errors import WindowUnavailable
from streams.health import Health
from streams.ids import EntryId
from streams.redis_client import RedisClient
from streams.tail import Tail, offer_all
from streams.window import Entry, parse_entries
from streams.xread import PackedRead

_log = logging.getLogger(__name__)

BLOCK_S = 5.0
_ENTRIES_PER_STREAM = 200
_BACKOFF_FIRST_S = 0.05
_BACKOFF_MOST_S = 1.0
_WAKE_EXPIRY_MS = 60_000
# Signals are for those who listen now; a process that is late misses them.
_SIGNALS_KEPT = 256
_SIGNALS_EXPIRY_MS = 60_000

OnGap = Callable[[Tail, Sequence[Entry]], None]
OnSignal = Callable[[str, str, bytes], None]
"""Called with project, event and data for every signal of a shard that this process reads."""


class Lane:
    """The reader of one shard's streams."""

    def __init__(
        self,
        shard: int,
        client: RedisClient,
        process_id: str,
        health: Health,
        on_gap: OnGap,
        on_signal: OnSignal,
    ) -> None:
        self.shard = shard
        self.reading = False
        self._client = client
        self._health = health
        self._on_gap = on_gap
        self._on_signal = on_signal
        self._wake_key = keys.wake(shard, process_id)
        self._signals_key = keys.signals(shard)
        self._wake_id = b"0-0"
        self._signals_id = b"0-0"
        self._connection = client.dedicated(self._wake_key, block_s=BLOCK_S)
        self._streams = PackedRead(
            count=_ENTRIES_PER_STREAM,
            block_ms=int(BLOCK_S * 1000),
            further=(self._signals_key, self._wake_key),
        )
        self._anything = asyncio.Event()
        self._waking: asyncio.Task[None] | None = None

    @property
    def stuck(self) -> bool:
        """Whether there are readers and nothing is being read for them."""
        return bool(self._streams) and not self.reading

    def add(self, tail: Tail) -> None:
        """Read the tail's stream from its position on."""
        self._streams.add(keys.stream(tail.project_id).encode(), tail)
        self._anything.set()
        self.wake()

    def remove(self, tail: Tail) -> None:
        """Read the tail's stream no longer."""
        self._streams.remove(keys.stream(tail.project_id).encode())
        if not self._streams:
            self._anything.clear()

    def wake(self) -> None:
        """End the read under way, so that the next one sees new tails and positions."""
        if self.reading and self._waking is None:
            self._waking = asyncio.create_task(self._end_read(), name=f"wake lane {self.shard}")

    async def _end_read(self) -> None:
        try:
            await self._client.call("XADD", self._wake_key, "MAXLEN", 1, "*", "wake", 1)
            await self._client.call("PEXPIRE", self._wake_key, _WAKE_EXPIRY_MS)
        except WindowUnavailable:
            # The read ends by its own timeout, and the heads poll delivers meanwhile.
            self._health.saw_redis(False)
        finally:
            self._waking = None

    async def run(self) -> None:
        """Read for ever."""
        backoff_s = _BACKOFF_FIRST_S
        try:
            while True:
                await self._anything.wait()
                try:
                    await self._read()
                    backoff_s = _BACKOFF_FIRST_S
                except WindowUnavailable as error:
                    if self.reading:
                        _log.warning(
                            "lane lost redis", extra={"shard": self.shard, "error": str(error)}
                        )
                    self.reading = False
                    self._health.saw_redis(False)
                    await asyncio.sleep(backoff_s * random.uniform(0.5, 1.0))
                    backoff_s = min(backoff_s * 2, _BACKOFF_MOST_S)
        finally:
            self.reading = False
            if self._waking is not None:
                self._waking.cancel()
            await self._connection.close()

    async def _read(self) -> None:
        if not self.reading:
            self._signals_id = await self._newest_signal()
            self._health.saw_redis(True)
        self.reading = True
        while self._streams:
            reply = await self._connection.send(self._streams.pack(self._signals_id, self._wake_id))
            if reply:
                self._take(reply)
            # Let the readers of these entries run before the next read is sent: under load the
            # batches grow instead of the number of reads.
            await asyncio.sleep(0)
        # Nobody reads this shard: the next one who does starts afresh.
        self.reading = False

    async def _newest_signal(self) -> bytes:
        reply = await self._connection.call("XREVRANGE", self._signals_key, "+", "-", "COUNT", 1)
        return reply[0][0] if reply else b"0-0"

    def _take(self, reply: Any) -> None:
        for key, raw_entries in reply:
            tail = self._streams.tail(key)
            if tail is not None:
                entries = parse_entries(raw_entries)
                if entries:
                    tail.position = max(tail.position, entries[-1].id)
                    left = offer_all(tail, entries)
                    tail.notify()
                    if left:
                        self._on_gap(tail, left)
            elif key == self._signals_key.encode():
                for raw_id, fields in raw_entries:
                    self._signals_id = raw_id
                    if fields:
                        self._on_signal(fields[1].decode(), fields[3].decode(), fields[5])
            elif key == self._wake_key.encode():
                self._wake_id = raw_entries[-1][0]


class Lanes:
    """The lanes of this process, each made when its shard first has a reader."""

    def __init__(
        self,
        client: RedisClient,
        process_id: str,
        health: Health,
        on_gap: OnGap,
        on_signal: OnSignal,
    ) -> None:
        self._client = client
        self._process_id = process_id
        self._health = health
        self._on_gap = on_gap
        self._on_signal = on_signal
        self._lanes: dict[int, Lane] = {}
        self._group: asyncio.TaskGroup | None = None
        health.on_redis_return(self._wake_all)

    async def run(self) -> None:
        """Own the lanes' tasks for ever; a lane that ends by an error ends this too."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            for lane in self._lanes.values():
                group.create_task(lane.run(), name=f"lane {lane.shard}")
            await asyncio.Event().wait()

    def add(self, tail: Tail) -> None:
        """Follow the tail's stream."""
        shard = keys.shard_of(tail.project_id)
        lane = self._lanes.get(shard)
        if lane is None:
            lane = Lane(
                shard, self._client, self._process_id, self._health, self._on_gap, self._on_signal
            )
            self._lanes[shard] = lane
            if self._group is not None:
                self._group.create_task(lane.run(), name=f"lane {shard}")
        lane.add(tail)

    def remove(self, tail: Tail) -> None:
        """Follow the tail's stream no longer."""
        self._lanes[keys.shard_of(tail.project_id)].remove(tail)

    def reposition(self, tail: Tail, position: EntryId) -> None:
        """Read the tail's stream again from an earlier position."""
        tail.position = position
        self._lanes[keys.shard_of(tail.project_id)].wake()

    def stuck(self) -> list[int]:
        """Return the shards that have readers here and are not being read."""
        return [lane.shard for lane in self._lanes.values() if lane.stuck]

    def _wake_all(self) -> None:
        for lane in self._lanes.values():
            lane.wake()

    async def signal(self, project_id: str, event: str, data: bytes) -> None:
        """Send an ephemeral event or a notice to all processes that read the project's shard.

        At most once, never stored for later. Raises `WindowUnavailable`.
        """
        key = keys.signals(keys.shard_of(project_id))
        await self._client.call(
            "XADD", key, "MAXLEN", "~", _SIGNALS_KEPT, "*",
            "project", project_id, "event", event, "data", data,
        )  # fmt: skip
        await self._client.call("PEXPIRE", key, _SIGNALS_EXPIRY_MS)
