"""Lanes: one blocked XREAD per shard, over the streams that have readers in this process.

Always concrete ids, never `$`: nothing falls between two reads. A lane that fails backs off with
jitter and connects anew; a lane that is not reading is seen in `reading`. What an entry means to a
tail, and how a gap is filled, is decided elsewhere (`tail.py`, `tails.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Sequence
from typing import Any

from streams.model.errors import WindowRefused, WindowUnavailable
from streams.model.ids import MAX_SEQ, EntryId
from streams.model.shards import shard_of
from streams.runtime.health import Health
from streams.runtime.observer import Observer
from streams.tail.packed_read import PackedRead
from streams.tail.tail import Tail, offer_all
from streams.window import keys
from streams.window.entries import Entry, RawEntry, SkippedEntries, parse_entries, parse_signals
from streams.window.lua import script
from streams.window.redis_client import RedisClient

BLOCK_S = 5.0
_ENTRIES_PER_STREAM = 200
_BACKOFF_FIRST_S = 0.05
_BACKOFF_MOST_S = 1.0
_OPENINGS_AT_ONCE = 16
_WAKE_AGAIN_S = 0.5
_WAKE_EXPIRY_MS = 60_000
_BEGINNING = b"0-0"
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
        skipped: SkippedEntries,
        openings: asyncio.Semaphore,
        on_gap: OnGap,
        on_signal: OnSignal,
    ) -> None:
        self.shard = shard
        self.reading = False
        self._client = client
        self._health = health
        self._skipped = skipped
        self._openings = openings
        self._on_gap = on_gap
        self._on_signal = on_signal
        self._wake_key = keys.wake(shard, process_id)
        self._signals_key = keys.signals(shard)
        self._wake_id = _BEGINNING
        self._signals_id = _BEGINNING
        self._connection = client.dedicated(self._wake_key, block_s=BLOCK_S)
        self._streams = PackedRead(
            count=_ENTRIES_PER_STREAM,
            block_ms=int(BLOCK_S * 1000),
            further=(self._signals_key, self._wake_key),
        )
        self._anything = asyncio.Event()
        # How often tails came or were set back; as it was when the last read was packed; and
        # whether that read is under way.
        self._changes = 0
        self._packed_changes = 0
        self._under_way = False
        self._waking: asyncio.Task[None] | None = None

    @property
    def has_readers(self) -> bool:
        """Whether there is anything to read."""
        return bool(self._streams)

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
        self._changes += 1
        if self._under_way and self._waking is None:
            self._waking = asyncio.create_task(self._end_read(), name=f"wake lane {self.shard}")

    async def _end_read(self) -> None:
        """Wake until no read is under way that was packed before the last change."""
        woken_for = -1
        try:
            # An entry that was added after a change ends every read that was packed before it,
            # also one that the server gets later. A change since then needs another entry: this
            # one may have ended a read, and the next may have been packed, before it.
            while self._under_way and self._changes not in (self._packed_changes, woken_for):
                changes = self._changes
                try:
                    await self._client.run(
                        script("add_expiring"), self._wake_key, "=", 1, _WAKE_EXPIRY_MS, "wake", 1
                    )
                    woken_for = changes
                except WindowUnavailable:
                    # The heads poll delivers meanwhile, and the read ends by its own timeout.
                    await asyncio.sleep(_WAKE_AGAIN_S)
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
                        backoff_s = _BACKOFF_FIRST_S
                    self.reading = False
                    if self._streams:
                        self._health.lane_lost(self.shard, error)
                    if isinstance(error, WindowRefused):
                        await self._drop_what_is_no_stream()
                    await asyncio.sleep(backoff_s * random.uniform(0.5, 1.0))
                    backoff_s = min(backoff_s * 2, _BACKOFF_MOST_S)
        finally:
            self.reading = False
            if self._waking is not None:
                self._waking.cancel()
            await self._connection.close()

    async def _read(self) -> None:
        if not self.reading:
            # A few lanes at a time: all of them lose a server at once.
            async with self._openings:
                self._signals_id = await self._newest_signal()
            self._wake_id = _BEGINNING
            self._health.lane_reads(self.shard)
        self.reading = True
        while self._streams:
            packed = self._streams.pack(self._signals_id, self._wake_id)
            self._packed_changes = self._changes
            self._under_way = True
            try:
                reply = await self._connection.send(packed)
            finally:
                self._under_way = False
            if reply:
                for key in self._take(reply):
                    await self._connection.call("DEL", key)
            # Let the readers of these entries run before the next read is sent: under load the
            # batches grow instead of the number of reads.
            await asyncio.sleep(0)
        # Nobody reads this shard: the next one who does starts afresh.
        self.reading = False

    async def _newest_signal(self) -> bytes:
        reply = await self._connection.call("XREVRANGE", self._signals_key, "+", "-", "COUNT", 1)
        return reply[0][0] if reply else _BEGINNING

    def _take(self, reply: Any) -> list[bytes]:
        """Hand on what was read; return the keys that take no further entries."""
        exhausted = []
        for key, raw_entries in reply:
            followed = self._streams.get(key)
            if followed is not None:
                # Else the tail was set back while this was read: it will be read again.
                if followed.is_as_packed:
                    self._take_entries(followed.tail, key, raw_entries)
                continue
            newest = raw_entries[-1][0]
            if EntryId.parse(newest).seq > MAX_SEQ:
                # Ids are made by the server's clock: above this one there may be none.
                exhausted.append(key)
                newest = _BEGINNING
            if key == self._wake_key.encode():
                self._wake_id = newest
            elif key == self._signals_key.encode():
                self._signals_id = newest
                for signal in parse_signals(key, raw_entries, self._skipped):
                    self._on_signal(signal.project_id, signal.event, signal.data)
        return exhausted

    def _take_entries(self, tail: Tail, key: bytes, raw_entries: Sequence[RawEntry]) -> None:
        entries = parse_entries(key, raw_entries, self._skipped)
        tail.position = EntryId.parse(raw_entries[-1][0])
        if entries:
            left = offer_all(tail, entries)
            tail.notify()
            if left:
                self._on_gap(tail, left)

    async def _drop_what_is_no_stream(self) -> None:
        """Delete keys of another type: one of them has the reads of all others refused."""
        for key in (*self._streams.keys(), self._signals_key.encode(), self._wake_key.encode()):
            with contextlib.suppress(WindowUnavailable):
                if await self._connection.call("TYPE", key) not in (b"stream", b"none"):
                    self._skipped.skipped(key, 1)
                    await self._connection.call("DEL", key)


class Lanes:
    """The lanes of this process, each made when its shard first has a reader."""

    def __init__(
        self,
        client: RedisClient,
        process_id: str,
        health: Health,
        on_gap: OnGap,
        on_signal: OnSignal,
        skipped: SkippedEntries | None = None,
    ) -> None:
        self._client = client
        self._process_id = process_id
        self._health = health
        self._skipped = skipped or SkippedEntries(Observer())
        self._openings = asyncio.Semaphore(_OPENINGS_AT_ONCE)
        self._on_gap = on_gap
        self._on_signal = on_signal
        self._lanes: dict[int, Lane] = {}
        self._group: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Own the lanes' tasks for ever; a lane that ends by an error ends this too."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            for lane in self._lanes.values():
                group.create_task(lane.run(), name=f"lane {lane.shard}")
            await asyncio.Event().wait()

    def add(self, tail: Tail) -> None:
        """Follow the tail's stream."""
        shard = shard_of(tail.project_id)
        lane = self._lanes.get(shard)
        if lane is None:
            lane = Lane(
                shard, self._client, self._process_id, self._health, self._skipped,
                self._openings, self._on_gap, self._on_signal,
            )  # fmt: skip
            self._lanes[shard] = lane
            if self._group is not None:
                self._group.create_task(lane.run(), name=f"lane {shard}")
        lane.add(tail)

    def remove(self, tail: Tail) -> None:
        """Follow the tail's stream no longer."""
        shard = shard_of(tail.project_id)
        lane = self._lanes[shard]
        lane.remove(tail)
        if not lane.has_readers:
            self._health.lane_unused(shard)

    def reposition(self, tail: Tail, position: EntryId) -> None:
        """Read the tail's stream again from an earlier position."""
        # A new object: what is being read from the present position is then not taken.
        tail.position = EntryId(*min(tail.position, position))
        self._lanes[shard_of(tail.project_id)].wake()

    def stuck(self) -> list[int]:
        """Return the shards that have readers here and are not being read."""
        return [lane.shard for lane in self._lanes.values() if lane.stuck]

    async def signal(self, project_id: str, event: str, data: bytes) -> None:
        """Send an ephemeral event or a notice to all processes that read the project's shard.

        At most once, never stored for later. Raises `WindowUnavailable`.
        """
        key = keys.signals(shard_of(project_id))
        await self._client.run(
            script("add_expiring"), key, "~", _SIGNALS_KEPT, _SIGNALS_EXPIRY_MS,
            "project", project_id, "event", event, "data", data,
        )  # fmt: skip
