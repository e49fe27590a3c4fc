"""A lane: one blocked XREAD over the streams of one shard that have readers in this process.

Always concrete ids, never `$`: no entry can fall between two reads. A lane that fails waits
(backoff with jitter) and connects again; `reading` is false until it reads. What an entry means to
a tail is decided in `tail.py`, how a gap is filled in `gap_filler.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from streams.model.errors import WindowRefused, WindowUnavailable
from streams.model.ids import MAX_SEQ, EntryId
from streams.runtime.backoff import Backoff
from streams.runtime.health import Health
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
_WAKE_AGAIN_S = 0.5
_WAKE_EXPIRY_MS = 60_000
_BEGINNING = b"0-0"

OnGap = Callable[[Tail, Sequence[Entry]], None]
"""Called with a tail and the entries that do not meet its last one."""
OnSignal = Callable[[str, str, bytes], None]
"""Called with project, event and data for every signal of a shard that this process reads."""


class LaneContext(msgspec.Struct, frozen=True):
    """What all lanes of a process share. `openings` bounds how many connect at the same time."""

    client: RedisClient
    process_id: str
    health: Health
    skipped: SkippedEntries
    openings: asyncio.Semaphore
    on_gap: OnGap
    on_signal: OnSignal


class Lane:
    """The reader of one shard's streams."""

    def __init__(self, shard: int, context: LaneContext) -> None:
        self.shard = shard
        self.reading = False
        self._client = context.client
        self._health = context.health
        self._skipped = context.skipped
        self._openings = context.openings
        self._on_gap = context.on_gap
        self._on_signal = context.on_signal
        self._wake_key = keys.wake(shard, context.process_id)
        self._signals_key = keys.signals(shard)
        self._wake_id = _BEGINNING
        self._signals_id = _BEGINNING
        self._connection = self._client.dedicated(self._wake_key, block_s=BLOCK_S)
        self._streams = PackedRead(
            count=_ENTRIES_PER_STREAM,
            block_ms=int(BLOCK_S * 1000),
            further=(self._signals_key, self._wake_key),
        )
        self._has_streams = asyncio.Event()
        # Counts tails added and positions set back; its value when the last read was packed; and
        # whether that read is in progress.
        self._changes = 0
        self._packed_changes = 0
        self._read_in_progress = False
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
        self._has_streams.set()
        self.wake()

    def remove(self, tail: Tail) -> None:
        """Stop reading the tail's stream."""
        self._streams.remove(keys.stream(tail.project_id).encode())
        if not self._streams:
            self._has_streams.clear()

    # Waking: ending a read in progress, so that the next one names what was added.

    def wake(self) -> None:
        """End the read in progress, so that the next one sees new tails and positions."""
        self._changes += 1
        if self._read_in_progress and self._waking is None:
            self._waking = asyncio.create_task(self._end_read(), name=f"wake lane {self.shard}")

    async def _end_read(self) -> None:
        """Wake until no read is in progress that was packed before the last change."""
        woken_for = -1
        try:
            # A wake entry ends every read that was packed before it, even one that the server
            # receives later. A change made after the entry needs another entry: the entry may
            # have ended one read, and the next read may have been packed before the change.
            while self._read_in_progress and self._changes not in (
                self._packed_changes,
                woken_for,
            ):
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

    # Reading.

    async def run(self) -> None:
        """Read until cancelled."""
        backoff = Backoff(first_s=_BACKOFF_FIRST_S, most_s=_BACKOFF_MOST_S)
        try:
            while True:
                await self._has_streams.wait()
                try:
                    await self._read()
                    backoff.reset()
                except WindowUnavailable as error:
                    if self.reading:
                        backoff.reset()
                    self.reading = False
                    if self._streams:
                        self._health.lane_lost(self.shard, error)
                    if isinstance(error, WindowRefused):
                        await self._delete_keys_of_other_types()
                    await asyncio.sleep(backoff.next_s())
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
            self._read_in_progress = True
            try:
                reply = await self._connection.send(packed)
            finally:
                self._read_in_progress = False
            if reply:
                for key in self._take(reply):
                    await self._connection.call("DEL", key)
            # Let the readers of these entries run before the next read is sent: under load the
            # batches grow instead of the number of reads.
            await asyncio.sleep(0)
        # No readers in this shard: the next one starts a new series of reads.
        self.reading = False

    async def _newest_signal(self) -> bytes:
        reply = await self._connection.call("XREVRANGE", self._signals_key, "+", "-", "COUNT", 1)
        return reply[0][0] if reply else _BEGINNING

    def _take(self, reply: Any) -> list[bytes]:
        """Pass on what was read; return the keys that can take no further entries."""
        exhausted = []
        for key, raw_entries in reply:
            followed = self._streams.get(key)
            if followed is not None:
                # When the position was set back during the read, the next read returns these
                # entries again.
                if followed.is_as_packed:
                    self._take_entries(followed.tail, key, raw_entries)
                continue
            newest = raw_entries[-1][0]
            if EntryId.parse(newest).seq > MAX_SEQ:
                # The server makes these ids from its clock: above this one there may be none.
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

    async def _delete_keys_of_other_types(self) -> None:
        """Delete keys that are not streams: Redis refuses an XREAD that names one of them."""
        for key in (*self._streams.keys(), self._signals_key.encode(), self._wake_key.encode()):
            with contextlib.suppress(WindowUnavailable):
                if await self._connection.call("TYPE", key) not in (b"stream", b"none"):
                    self._skipped.skipped(key, 1)
                    await self._connection.call("DEL", key)
