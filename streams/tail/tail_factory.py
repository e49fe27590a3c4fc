"""Makes tails: compares the last entry of a project's stream with the head of its log.

A window that is behind or ahead of the log is healed here, because the project's first reader is
the first to notice. Who holds a tail, and for how long, is in `registry.py`.
"""

from __future__ import annotations

import asyncio

from streams.log.log import Log
from streams.model.errors import LogUnavailable, WindowUnavailable
from streams.model.ids import EntryId
from streams.runtime.health import Health
from streams.tail.tail import Tail
from streams.window.publisher import Publisher
from streams.window.window import Window

# How long Postgres may take to return the head of a project whose stream Redis has.
_PATIENCE_S = 0.5


class TailFactory:
    """Makes the tail of a project, empty, where the project is now."""

    def __init__(self, window: Window, log: Log, publisher: Publisher, health: Health) -> None:
        self._window = window
        self._log = log
        self._publisher = publisher
        self._health = health
        # Queries for heads, including those that nothing waits for any more.
        self._queries: set[asyncio.Task[int]] = set()

    async def make(self, project_id: str) -> Tail:
        """Return a tail that begins at the head of the project.

        Raises:
            ProjectNotFound: the log has no such project.
            LogUnavailable: neither Postgres nor Redis can say what the head is.
        """
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
            # Committed and not (yet) published: the next reader of the project heals it.
            self._publisher.heal(project_id)
        return _tail_at(project_id, head, last)

    async def _head(self, project_id: str, patience_s: float | None) -> int:
        # A task that is never cancelled: cancelling a query of a Postgres that hangs takes long.
        query = asyncio.create_task(self._log.head(project_id), name="read head")
        self._queries.add(query)
        query.add_done_callback(self._query_done)
        await asyncio.wait([query], timeout=patience_s)
        if not query.done():
            raise LogUnavailable("no answer from Postgres in time")
        return query.result()

    def _query_done(self, query: asyncio.Task[int]) -> None:
        self._queries.discard(query)
        if not query.cancelled():
            # Mark the exception as retrieved: nothing may wait for the query any more.
            query.exception()

    def queries(self) -> list[asyncio.Task[int]]:
        """Return the queries in progress, for the owner to end."""
        return list(self._queries)


def _tail_at(project_id: str, head: int, last: EntryId | None) -> Tail:
    """Return a tail at `head` of a project whose stream ends with `last` (none: empty)."""
    # A tail begins at the head even if the window is behind: readers get the missed messages by
    # their cursors.
    position = last if last is not None and last.seq == head else EntryId(head, 0)
    tail = Tail(project_id, last_seq=head, position=position)
    if last is not None and last.seq < head:
        # The stream is read from its own end: a transient entry may still be appended there.
        tail.position = last
    return tail
