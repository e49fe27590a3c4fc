"""The tails of this process: made when a project gets its first reader, filled, and let go.

A tail is filled by its lane; what the lane cannot give (a gap, a lost Redis) is fetched here from
the log, before anything newer is shown.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence

from streams.log.log import Log
from streams.model import sse
from streams.model.errors import LogUnavailable, StreamsError, WindowUnavailable
from streams.model.events import EPHEMERAL_EVENTS
from streams.model.ids import EntryId
from streams.runtime.health import Health
from streams.runtime.observer import Observer
from streams.runtime.owned_tasks import end
from streams.tail.lanes import Lanes
from streams.tail.tail import MAX_BYTES, Tail, offer_all
from streams.window.entries import SkippedEntries
from streams.window.publisher import Publisher
from streams.window.redis_client import RedisClient
from streams.window.window import Entry, Window, message_entries

_log = logging.getLogger(__name__)

_PAGE = 500
_MAX_PENDING = 2000
_MAX_PENDING_BYTES = 8 * 1024 * 1024
_MIN_BYTES = 64 * 1024
_FEW_SIGNALS = 4
# How long the log may take to say where a project stands that Redis knows.
_PATIENCE_S = 0.5

OnNotice = Callable[[str, str, bytes], None]
"""Called with project, event and data of each signal, whether or not the project has a tail."""


OnTail = Callable[[Tail], None]


class _Held:
    """A tail, how many readers hold it, and since when none does."""

    __slots__ = ("free_since", "holders", "tail")

    def __init__(self, tail: Tail) -> None:
        self.tail = tail
        self.holders = 0
        self.free_since = time.monotonic()


class Tails:
    """All tails of the process; the one place where they are made, filled and dropped."""

    def __init__(
        self,
        client: RedisClient,
        window: Window,
        log: Log,
        publisher: Publisher,
        health: Health,
        observer: Observer,
        *,
        skipped: SkippedEntries | None = None,
        process_id: str,
        memory_bytes: int,
        linger_s: float,
    ) -> None:
        self._window = window
        self._log = log
        self._publisher = publisher
        self._health = health
        self._observer = observer
        self._memory_bytes = memory_bytes
        self._linger_s = linger_s
        self.lanes = Lanes(client, process_id, health, self._on_gap, self._on_signal, skipped)
        self._held: dict[str, _Held] = {}
        # Those that nobody holds; the others cost a sweep nothing.
        self._free: set[str] = set()
        self._shared_by = 0
        self._making: dict[str, asyncio.Task[Tail]] = {}
        self._filling: dict[str, asyncio.Task[None]] = {}
        # Questions for heads, also those that nobody waits for any more.
        self._asking: set[asyncio.Task[int]] = set()
        self._pending: dict[str, list[Entry]] = {}
        self._notices: list[OnNotice] = []
        self._signals: dict[str, list[bytes]] = {}
        self._watchers: list[tuple[OnTail, OnTail]] = []

    def __len__(self) -> int:
        return len(self._held)

    def all(self) -> list[Tail]:
        """Return the tails that are there."""
        return [held.tail for held in self._held.values()]

    def get(self, project_id: str) -> Tail | None:
        """Return the project's tail if it is there, without holding it."""
        held = self._held.get(project_id)
        return None if held is None else held.tail

    def on_notice(self, callback: OnNotice) -> None:
        """Call `callback` with every signal this process receives."""
        self._notices.append(callback)

    def watch(self, made: OnTail, dropped: OnTail) -> None:
        """Call `made` with each tail before anything comes through it, `dropped` at its end."""
        self._watchers.append((made, dropped))

    @contextlib.asynccontextmanager
    async def reading(self, project_id: str) -> AsyncIterator[Tail]:
        """Hold the project's tail, making it if it is not there.

        Raises:
            ProjectNotFound: the log has no such project.
            LogUnavailable: neither Postgres nor Redis can say where the project stands.
        """
        tail = await self.acquire(project_id)
        try:
            yield tail
        finally:
            self.release(tail)

    async def acquire(self, project_id: str) -> Tail:
        """Hold the project's tail until `release`; see `reading`."""
        while True:
            held = self._held.get(project_id)
            if held is not None:
                held.holders += 1
                self._free.discard(project_id)
                return held.tail
            task = self._making.get(project_id)
            if task is None:
                # Its own task: a reader that goes away must not end it for the others.
                task = asyncio.create_task(self._make(project_id), name="make tail")
                self._making[project_id] = task
                task.add_done_callback(lambda _: self._making.pop(project_id, None))
            await asyncio.shield(task)

    def release(self, tail: Tail) -> None:
        """Let go of a tail; it lingers for readers that come back."""
        held = self._held[tail.project_id]
        held.holders -= 1
        held.free_since = time.monotonic()
        if held.holders == 0:
            self._free.add(tail.project_id)

    def sweep(self) -> None:
        """Drop the tails that nobody held for a while, and share the memory among the rest."""
        now = time.monotonic()
        for project_id in list(self._free):
            held = self._held[project_id]
            if now - held.free_since >= self._linger_s:
                self._free.discard(project_id)
                del self._held[project_id]
                self.lanes.remove(held.tail)
                for _, dropped in self._watchers:
                    dropped(held.tail)
        if self._shared_by != len(self._held):
            self._shared_by = len(self._held)
            share = self._memory_bytes // max(1, self._shared_by)
            for held in self._held.values():
                held.tail.max_bytes = min(MAX_BYTES, max(_MIN_BYTES, share))

    async def _make(self, project_id: str) -> Tail:
        # Redis before Postgres: what is in the stream was committed, so its last message is at
        # most the head read afterwards, unless the log was restored from a backup.
        last: EntryId | None = None
        redis_answers = True
        try:
            last = await self._window.last_id(project_id)
        except WindowUnavailable:
            redis_answers = False
            self._health.suspect()
        try:
            head = await self._head(project_id, None if last is None else _PATIENCE_S)
        except LogUnavailable:
            if last is None:
                raise
            head = last.seq
        if last is not None and last.seq > head:
            self._publisher.heal(project_id, "replace")
        elif redis_answers and head > 0 and (last is None or last.seq < head):
            # Committed and not (yet) published: whoever reads the project next heals it.
            self._publisher.heal(project_id)
        # A window that is behind is no reason to begin behind: readers start from the head, and
        # what they missed comes by their cursors.
        position = last if last is not None and last.seq == head else EntryId(head, 0)
        tail = Tail(project_id, last_seq=head, position=position)
        if last is not None and last.seq < head:
            # But the stream is read from where it stands: a transient entry may come there yet.
            tail.position = last
        self._held[project_id] = _Held(tail)
        self._free.add(project_id)
        self._shared_by = 0
        for made, _ in self._watchers:
            made(tail)
        self.lanes.add(tail)
        return tail

    async def _head(self, project_id: str, patience_s: float | None) -> int:
        # In a task that is left alone: to cancel a question of a Postgres that hangs takes long.
        asking = asyncio.create_task(self._log.head(project_id), name="read head")
        self._asking.add(asking)
        asking.add_done_callback(self._asked)
        await asyncio.wait([asking], timeout=patience_s)
        if not asking.done():
            raise LogUnavailable("no answer from Postgres in time")
        return asking.result()

    def _asked(self, asking: asyncio.Task[int]) -> None:
        self._asking.discard(asking)
        if not asking.cancelled():
            asking.exception()

    # Filling.

    def _on_gap(self, tail: Tail, entries: Sequence[Entry]) -> None:
        self._observer.gap_found()
        pending = self._pending.setdefault(tail.project_id, [])
        pending.extend(entries)
        # Above the bounds the oldest go: their messages come from the log anyway.
        del pending[:-_MAX_PENDING]
        size = 0
        for place in range(len(pending) - 1, -1, -1):
            size += len(pending[place].data)
            if size > _MAX_PENDING_BYTES:
                del pending[: place + 1]
                break
        self.fill(tail)

    def fill(self, tail: Tail) -> None:
        """Fetch from the log what the tail lacks, soon; one fetch at a time for a tail."""
        if tail.project_id not in self._filling:
            task = asyncio.create_task(self._fill(tail), name="fill tail")
            self._filling[tail.project_id] = task
            task.add_done_callback(lambda _: self._filling.pop(tail.project_id, None))

    async def _fill(self, tail: Tail) -> None:
        try:
            while True:
                page = await self._log.slice(tail.project_id, after=tail.last_seq, limit=_PAGE)
                messages = page.messages
                offer_all(tail, message_entries(messages))
                tail.notify()
                pending = self._pending.pop(tail.project_id, [])
                left = offer_all(tail, pending)
                tail.notify()
                if not left:
                    self._observer.gap_healed()
                    if len(messages) < _PAGE and not page.is_cut:
                        return
                elif not messages:
                    # The stream is ahead of the log: a restored log. The heads poll decides.
                    _log.warning(
                        "the window is ahead of the log", extra={"project_id": tail.project_id}
                    )
                    return
                else:
                    self._pending[tail.project_id] = left
        except StreamsError as error:
            if not isinstance(error, LogUnavailable):
                _log.warning(
                    "tail not filled", extra={"project_id": tail.project_id, "error": str(error)}
                )
            # Read the stream again from the last message on, or its transient entries are lost.
            self._pending.pop(tail.project_id, None)
            self.lanes.reposition(tail, EntryId(tail.last_seq, 0))

    def restart(self, tail: Tail, head: int) -> None:
        """Go on after `head`: the log was restored and lacks what the tail has."""
        self._pending.pop(tail.project_id, None)
        tail.restart(head, EntryId(head, 0))
        self._publisher.heal(tail.project_id, "replace")
        self.lanes.reposition(tail, EntryId(head, 0))

    def _on_signal(self, project_id: str, event: str, data: bytes) -> None:
        if project_id in self._held and event in EPHEMERAL_EVENTS:
            if not self._signals:
                asyncio.get_running_loop().call_soon(self._hand_on_signals)
            self._signals.setdefault(project_id, []).append(sse.event_frame(event, data))
        for callback in self._notices:
            callback(project_id, event, data)

    def _hand_on_signals(self) -> None:
        signals, self._signals = self._signals, {}
        for project_id, frames in signals.items():
            held = self._held.get(project_id)
            if held is not None:
                # A crowd that arrives at once: one write a connection, not one for each of them.
                for frame in frames if len(frames) <= _FEW_SIGNALS else [b"".join(frames)]:
                    held.tail.signal(frame)

    async def close(self) -> None:
        """End the tasks that make and fill tails."""
        await end([*self._making.values(), *self._filling.values(), *self._asking])
