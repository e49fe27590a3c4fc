"""Readers: cursors that slide over the highest tier that covers them and fall to a lower one.

Memory, then Redis (which extends memory downwards, once for all who ask), then Postgres by pages
that equal requests share. Each piece is spliced by seq: what is handed out is contiguous.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Literal

import msgspec

from streams.log.log import Log
from streams.model import sse
from streams.model.errors import LogRestored, LogUnavailable, WindowUnavailable
from streams.model.events import encode
from streams.model.ids import EntryId
from streams.model.shards import shard_of
from streams.runtime.health import Health
from streams.runtime.owned_tasks import end
from streams.tail.tail import Tail
from streams.window.window import (
    MAX_ENTRIES,
    WINDOW_MESSAGES,
    Entry,
    Window,
    covers,
    message_entries,
)

Source = Literal["none", "memory", "redis", "postgres"]

PAGE_MESSAGES = 200
MAX_PIECE_BYTES = 256 * 1024


class Piece(msgspec.Struct, frozen=True):
    """Consecutive frames for a reader.

    `last_seq` is its cursor after them, `index` its place in the tail (none: below it), and
    `messages` how many of the frames are messages.
    """

    frames: list[bytes]
    last_seq: int
    index: int | None
    messages: int


class Tiers:
    """Reads below memory, shared by the readers of this process."""

    def __init__(self, window: Window, log: Log, health: Health) -> None:
        self._window = window
        self._log = log
        self._health = health
        self._extending: dict[str, asyncio.Task[bool]] = {}
        self._pages: dict[tuple[str, int, int], asyncio.Task[list[tuple[int, bytes]]]] = {}
        self._heads: dict[str, asyncio.Task[int]] = {}

    async def head(self, project_id: str) -> int:
        """Return the head of a project as the log has it: all who ask share the answer.

        It may be the answer to a question that was under way: what was committed since is only
        in the next one.

        Raises `LogUnavailable`, `ProjectNotFound`.
        """
        task = self._heads.get(project_id)
        if task is None:
            task = asyncio.create_task(self._log.head(project_id), name="read head")
            self._heads[project_id] = task
            task.add_done_callback(lambda done: self._head_read(project_id, done))
        return await asyncio.shield(task)

    def _head_read(self, project_id: str, task: asyncio.Task[int]) -> None:
        self._heads.pop(project_id, None)
        if not task.cancelled():
            # Whoever asked has it, or waits no longer.
            task.exception()

    async def extend(self, tail: Tail, cursor: int) -> bool:
        """Try to make memory cover `cursor` from the window; tell whether it does now."""
        if tail.covers(cursor):
            return True
        if tail.last_seq - cursor > WINDOW_MESSAGES or not self._health.can_read(
            shard_of(tail.project_id)
        ):
            return False
        task = self._extending.get(tail.project_id)
        if task is None:
            task = asyncio.create_task(self._extend(tail), name="extend tail")
            self._extending[tail.project_id] = task
            task.add_done_callback(lambda _: self._extending.pop(tail.project_id, None))
        await asyncio.shield(task)
        return tail.covers(cursor)

    async def _extend(self, tail: Tail) -> bool:
        # The whole window, not only what this reader needs: others will come from further back.
        after = EntryId(max(0, tail.last_seq - WINDOW_MESSAGES), 0)
        try:
            entries = await self._window.read_after(
                tail.project_id, after, count=MAX_ENTRIES + WINDOW_MESSAGES
            )
        except WindowUnavailable:
            self._health.suspect()
            return False
        first = next((entry.id.seq for entry in entries if entry.id.k == 0), None)
        if first is not None and first > after.seq + 1:
            # The window is shorter than it could be: it covers from its own first message on.
            after = EntryId(first - 1, 0)
            entries = [entry for entry in entries if entry.id > after]
        below = [entry for entry in entries if entry.id <= tail.floor]
        if below and below[-1].id.seq < tail.floor.seq:
            # Committed and not yet published, when the tail was made. Without the window's part
            # its transient entries would be left out.
            below += await self._unpublished(tail.project_id, below[-1].id.seq, tail.floor.seq)
        if not covers(below, after, tail.floor.seq):
            return False
        tail.extend_down(below, after)
        return True

    async def _unpublished(self, project_id: str, after: int, upto: int) -> list[Entry]:
        try:
            return message_entries(
                await self._log.read(
                    project_id, after=after, before=upto + 1, limit=WINDOW_MESSAGES
                )
            )
        except LogUnavailable:
            return []

    async def page(self, project_id: str, after: int, upto: int) -> list[tuple[int, bytes]]:
        """Return (seq, frame) of at most `PAGE_MESSAGES` messages after `after` up to `upto`.

        Raises `LogUnavailable`.
        """
        key = (project_id, after, upto)
        task = self._pages.get(key)
        if task is None:
            task = asyncio.create_task(self._read_page(*key), name="read page")
            self._pages[key] = task
            task.add_done_callback(lambda _: self._pages.pop(key, None))
        return await asyncio.shield(task)

    async def _read_page(self, project_id: str, after: int, upto: int) -> list[tuple[int, bytes]]:
        # One piece takes no more.
        messages = await self._log.read(
            project_id,
            after=after,
            before=upto + 1,
            limit=PAGE_MESSAGES,
            max_bytes=MAX_PIECE_BYTES,
        )
        return [(m.seq, sse.message_frame(m.seq, encode(m))) for m in messages]

    async def close(self) -> None:
        """End the reads under way."""
        await end([*self._extending.values(), *self._pages.values(), *self._heads.values()])


class Reader:
    """One cursor over a project. It holds no entries: it is a seq and a place in the tail.

    `seq` is the last message handed out. `source` is the lowest tier that was needed so far.
    """

    __slots__ = ("_generation", "_tail", "_tiers", "index", "seq", "source")

    def __init__(self, tail: Tail, tiers: Tiers, cursor: int) -> None:
        self._tail = tail
        self._tiers = tiers
        self._generation = tail.generation
        self.seq = cursor
        self.index: int | None = None
        self.source: Source = "none"

    def at(self, seq: int, index: int) -> None:
        """Stand after message `seq` at a place in the tail."""
        self.seq = seq
        self.index = index

    @property
    def at_end(self) -> bool:
        """Whether everything in the tail was handed out."""
        return self.index == self._tail.end_index

    async def read(self, *, limit: int = PAGE_MESSAGES, end_index: int | None = None) -> Piece:
        """Return what follows, at most about `limit` messages; an empty piece at the end.

        `end_index` is a place in the tail beyond which nothing is wanted. The reader has moved
        past what is returned: whoever cannot write it must not use the reader again.

        Raises:
            LogUnavailable: the log is needed and does not answer. The reader has not moved.
            LogRestored: the reader was further than the log; it now stands at its head of then.
        """
        tail = self._tail
        while True:
            if self._generation != tail.generation:
                self._generation = tail.generation
                self.index = None
                if self.seq > tail.restored_head:
                    self.seq = tail.restored_head
                    raise LogRestored(tail.restored_head)
            if self.index is not None and self.index < tail.first_index:
                self.index = None
            if self.index is None and tail.covers(self.seq):
                self.index = tail.index_after(self.seq)
                self._came_from("memory")
            if self.index is not None:
                return self._from_memory(self.index, limit, end_index)
            if self.seq > tail.last_seq:
                # Ahead of this process's tail, which will catch up.
                return Piece([], self.seq, None, 0)
            if await self._tiers.extend(tail, self.seq):
                self._came_from("redis")
                continue
            if self.seq >= tail.floor.seq:
                # Nothing but transient entries is missing, and the window does not have them.
                self.index = tail.first_index
                continue
            page = await self._tiers.page(tail.project_id, self.seq, tail.floor.seq)
            if tail.covers(self.seq):
                continue
            if not page:
                # It was delivered once and the log does not have it: the heads poll will decide.
                raise LogUnavailable("the log lacks messages that it had")
            self._came_from("postgres")
            return self._from_page(page, limit)

    def _from_memory(self, start: int, limit: int, end_index: int | None) -> Piece:
        tail = self._tail
        end = tail.end_index if end_index is None else max(start, min(end_index, tail.end_index))
        last_seq = tail.seq_before(end)
        if last_seq - self.seq > limit:
            end = tail.index_after(self.seq + limit)
            last_seq = self.seq + limit
        frames = _within_bytes(tail.frames(start, end))
        if start + len(frames) < end:
            end = start + len(frames)
            last_seq = tail.seq_before(end)
        # A late transient entry may stand behind newer messages: a cursor never goes back.
        last_seq = max(last_seq, self.seq)
        messages = last_seq - self.seq
        self.seq, self.index = last_seq, end
        return Piece(frames, last_seq, end, messages)

    def _from_page(self, page: Sequence[tuple[int, bytes]], limit: int) -> Piece:
        frames = _within_bytes([frame for _, frame in page[:limit]])
        self.seq = page[len(frames) - 1][0]
        return Piece(frames, self.seq, None, len(frames))

    def _came_from(self, source: Source) -> None:
        order: tuple[Source, ...] = ("none", "memory", "redis", "postgres")
        if order.index(source) > order.index(self.source):
            self.source = source


def _within_bytes(frames: list[bytes]) -> list[bytes]:
    """Return the first frames that make about `MAX_PIECE_BYTES`, at least one if there is one."""
    if sum(map(len, frames)) <= MAX_PIECE_BYTES:
        return frames
    size = 0
    for count, frame in enumerate(frames):
        size += len(frame)
        if size > MAX_PIECE_BYTES:
            return frames[: max(1, count)]
    return frames
