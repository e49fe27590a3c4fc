"""A reader: one cursor that moves over the highest tier that covers it.

    tail    memory     whatever it covers is read from it
    window  Redis      put into the tail from below, then read from the tail
    log     Postgres   read by pages until the cursor is covered by the tail

A reader starts at the top and falls to a lower tier when its cursor is not covered; with each
piece it tries the top again. Pieces are contiguous by seq. How the lower tiers are fetched, and
shared among readers, is in `lower_tiers.py`.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from streams.model.errors import LogRestored, LogUnavailable
from streams.tail.lower_tiers import MAX_PIECE_BYTES, PAGE_MESSAGES, LogPage, LowerTiers
from streams.tail.tail import Tail

Source = Literal["none", "memory", "redis", "postgres"]
_TOP_TO_BOTTOM: tuple[Source, ...] = ("none", "memory", "redis", "postgres")


class Piece(msgspec.Struct, frozen=True):
    """Consecutive frames for a reader.

    `last_seq` is its cursor after them, `index` its place in the tail (none: below the tail), and
    `messages` how many of the frames are messages.
    """

    frames: list[bytes]
    last_seq: int
    index: int | None
    messages: int


class Reader:
    """One cursor over a project. It holds no entries, only a seq and a place in the tail.

    `seq` is the last message handed out, `index` the place in the tail (none: below it), and
    `source` the lowest tier that was needed so far.
    """

    __slots__ = ("_extensions", "_generation", "_lower", "_tail", "index", "seq", "source")

    def __init__(self, tail: Tail, lower: LowerTiers, cursor: int) -> None:
        self._tail = tail
        self._lower = lower
        self._generation = tail.generation
        self._extensions = tail.extensions
        self.seq = cursor
        self.index: int | None = None
        self.source: Source = "none"

    def at(self, seq: int, index: int) -> None:
        """Move to a place in the tail, after message `seq`, that was its end some time ago."""
        self.seq = seq
        self.index = None if index < self._tail.trimmed_index else index

    @property
    def at_end(self) -> bool:
        """Whether everything in the tail was handed out."""
        return self.index == self._tail.end_index

    @property
    def lost_its_place(self) -> bool:
        """Whether it is below the tail, so that it may miss transient entries that were there."""
        return self.index is None or self.index < self._tail.trimmed_index

    async def read(self, *, limit: int = PAGE_MESSAGES, end_index: int | None = None) -> Piece:
        """Return what follows, at most about `limit` messages; an empty piece at the end.

        Nothing from index `end_index` of the tail on is returned. The reader has moved past what
        is returned: a caller that cannot write the piece must not use the reader again.

        Raises:
            LogUnavailable: the log is needed and does not answer. The reader has not moved.
            LogRestored: the reader was beyond the restored log; it is at that log's head now.
        """
        tail = self._tail
        while True:
            if self._generation != tail.generation:
                self._follow_restored_log()
            if self._is_in_tail():
                return self._from_tail(limit, end_index)
            if self.seq > tail.last_seq:
                # Ahead of this process's tail, which will catch up.
                return Piece([], self.seq, None, 0)
            if await self._lower.extend_from_window(tail, self.seq):
                self._needed("redis")
                continue
            if self.seq >= tail.floor.seq:
                # Only transient entries are missing, and the window does not have them.
                self.index = tail.first_index
                continue
            page = await self._lower.log_page(tail.project_id, self.seq, tail.floor.seq)
            if tail.covers(self.seq):
                # Another reader extended the tail meanwhile.
                continue
            if not page:
                # Delivered once and no longer in the log: the heads poll will decide.
                raise LogUnavailable("the log lacks messages that it had")
            self._needed("postgres")
            return self._from_log(page, limit)

    def _follow_restored_log(self) -> None:
        """Leave the tail as it was before the log was restored.

        Raises `LogRestored` when the cursor is beyond the restored log.
        """
        self._generation = self._tail.generation
        self.index = None
        head = self._tail.restored_head
        if self.seq > head:
            self.seq = head
            raise LogRestored(head)

    def _is_in_tail(self) -> bool:
        """Tell whether the tail has what follows the cursor; set `index` to where."""
        tail = self._tail
        if self.index is not None:
            is_same = self.index >= tail.trimmed_index or self._extensions == tail.extensions
            if self.index >= tail.first_index and is_same:
                return True
            # Too slow: the tail was trimmed beyond this reader, and may have been extended since.
            self.index = None
        self._extensions = tail.extensions
        if not tail.covers(self.seq):
            return False
        self.index = tail.index_after(self.seq)
        self._needed("memory")
        return True

    def _from_tail(self, limit: int, end_index: int | None) -> Piece:
        tail, start = self._tail, self.index
        assert start is not None
        end = tail.end_index if end_index is None else max(start, min(end_index, tail.end_index))
        last_seq = tail.seq_before(end)
        if last_seq - self.seq > limit:
            end = tail.index_after(self.seq + limit)
            last_seq = self.seq + limit
        frames = _within_bytes(tail.frames(start, end))
        if start + len(frames) < end:
            end = start + len(frames)
            last_seq = tail.seq_before(end)
        # A late transient entry may come after newer messages: a cursor never goes back.
        last_seq = max(last_seq, self.seq)
        messages = last_seq - self.seq
        self.seq, self.index = last_seq, end
        return Piece(frames, last_seq, end, messages)

    def _from_log(self, page: LogPage, limit: int) -> Piece:
        frames = _within_bytes([frame for _, frame in page[:limit]])
        self.seq = page[len(frames) - 1][0]
        return Piece(frames, self.seq, None, len(frames))

    def _needed(self, source: Source) -> None:
        if _TOP_TO_BOTTOM.index(source) > _TOP_TO_BOTTOM.index(self.source):
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
