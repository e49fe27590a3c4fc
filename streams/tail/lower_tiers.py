"""What readers fetch from below memory: the window (Redis) and the log (Postgres).

Window entries are put into the tail, so one fetch serves every reader of the project. Log pages
are shared by readers that ask for the same one. Which tier a reader needs is decided in
`reader.py`.
"""

from __future__ import annotations

from streams.log.log import Log
from streams.model import sse
from streams.model.errors import LogUnavailable, WindowUnavailable
from streams.model.events import encode
from streams.model.ids import EntryId
from streams.model.shards import shard_of
from streams.runtime.health import Health
from streams.runtime.owned_tasks import end
from streams.runtime.single_flight import SingleFlight
from streams.tail.tail import Tail
from streams.window.window import (
    MAX_ENTRIES,
    WINDOW_MESSAGES,
    Entry,
    Window,
    covers,
    message_entries,
)

PAGE_MESSAGES = 200
MAX_PIECE_BYTES = 256 * 1024

LogPage = list[tuple[int, bytes]]
"""Consecutive messages of the log: seq and frame of each."""


class LowerTiers:
    """Reads of the window and the log, shared by the readers of this process."""

    def __init__(self, window: Window, log: Log, health: Health) -> None:
        self._window = window
        self._log = log
        self._health = health
        self._extensions = SingleFlight[str, None]("extend tail")
        self._pages = SingleFlight[tuple[str, int, int], LogPage]("read page")
        self._heads = SingleFlight[str, int]("read head")

    async def head(self, project_id: str) -> int:
        """Return the head of a project from the log; concurrent callers share one query.

        The query may have been in progress already: a commit since then shows in the next one.

        Raises `LogUnavailable`, `ProjectNotFound`.
        """
        return await self._heads.run(project_id, lambda: self._log.head(project_id))

    async def extend_from_window(self, tail: Tail, cursor: int) -> bool:
        """Extend the tail downwards with the window; tell whether it covers `cursor` now."""
        if tail.covers(cursor):
            return True
        if tail.last_seq - cursor > WINDOW_MESSAGES or not self._health.can_read(
            shard_of(tail.project_id)
        ):
            return False
        await self._extensions.run(tail.project_id, lambda: self._extend(tail))
        return tail.covers(cursor)

    async def _extend(self, tail: Tail) -> None:
        # The whole window, not only what this reader needs: others will ask from further back.
        after = EntryId(max(0, tail.last_seq - WINDOW_MESSAGES), 0)
        try:
            entries = await self._window.read_after(
                tail.project_id, after, count=MAX_ENTRIES + WINDOW_MESSAGES
            )
        except WindowUnavailable:
            self._health.suspect()
            return
        first = next((entry.id.seq for entry in entries if entry.id.k == 0), None)
        if first is not None and first > after.seq + 1:
            # The window is shorter than it could be: it covers from its own first message on.
            after = EntryId(first - 1, 0)
            entries = [entry for entry in entries if entry.id > after]
        below = [entry for entry in entries if entry.id <= tail.floor]
        if below and below[-1].id.seq < tail.floor.seq:
            # Messages that were committed but not published when the tail was made. Complete the
            # window's part from the log, or the transient entries in it would be left out.
            below += await self._unpublished(tail.project_id, below[-1].id.seq, tail.floor.seq)
        if covers(below, after, tail.floor.seq):
            tail.extend_down(below, after)

    async def _unpublished(self, project_id: str, after: int, upto: int) -> list[Entry]:
        try:
            messages = await self._log.read(
                project_id, after=after, before=upto + 1, limit=WINDOW_MESSAGES
            )
        except LogUnavailable:
            return []
        return message_entries(messages)

    async def log_page(self, project_id: str, after: int, upto: int) -> LogPage:
        """Return at most `PAGE_MESSAGES` messages with `after < seq <= upto` from the log.

        Raises `LogUnavailable`.
        """
        key = (project_id, after, upto)
        return await self._pages.run(key, lambda: self._read_page(*key))

    async def _read_page(self, project_id: str, after: int, upto: int) -> LogPage:
        # Not more than a reader hands out at once.
        messages = await self._log.read(
            project_id,
            after=after,
            before=upto + 1,
            limit=PAGE_MESSAGES,
            max_bytes=MAX_PIECE_BYTES,
        )
        return [(m.seq, sse.message_frame(m.seq, encode(m))) for m in messages]

    async def close(self) -> None:
        """End the reads in progress."""
        await end([*self._extensions.tasks(), *self._pages.tasks(), *self._heads.tasks()])
