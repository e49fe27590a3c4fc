"""Fills tails from the log: what lies between a tail's last message and what its lane brought.

Entries that arrive behind a gap are held back, within bounds, until the messages before them are
in the tail (invariant I3, docs/design.md). Finding out that a tail is behind is not done here:
lanes report gaps (`lane.py`), the heads poll finds the rest (`heads_poll.py`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from streams.log.log import Log
from streams.model.errors import LogUnavailable, StreamsError
from streams.model.ids import EntryId
from streams.runtime.observer import Observer
from streams.tail.tail import Tail, offer_all
from streams.window.publisher import Publisher
from streams.window.window import Entry, message_entries

_log = logging.getLogger(__name__)

_PAGE = 500
_MAX_HELD_BACK = 2000
_MAX_HELD_BACK_BYTES = 8 * 1024 * 1024

OnReread = Callable[[Tail, EntryId], None]
"""Called with a tail whose stream must be read again, and the position to read it from."""


class GapFiller:
    """Fetches what tails lack from the log, one fetch at a time per tail."""

    def __init__(self, log: Log, publisher: Publisher, observer: Observer) -> None:
        self._log = log
        self._publisher = publisher
        self._observer = observer
        self._fetches: dict[str, asyncio.Task[None]] = {}
        self._held_back: dict[str, list[Entry]] = {}
        self._on_reread: list[OnReread] = []

    def on_reread(self, callback: OnReread) -> None:
        """Call `callback` when the stream of a tail must be read again from a position."""
        self._on_reread.append(callback)

    def gap_found(self, tail: Tail, entries: Sequence[Entry]) -> None:
        """Hold back entries that do not meet the tail's last one, and fetch what is between."""
        self._observer.gap_found()
        held = self._held_back.setdefault(tail.project_id, [])
        held.extend(entries)
        _keep_newest(held)
        self.fill(tail)

    def fill(self, tail: Tail) -> None:
        """Start to fetch what the tail lacks, unless a fetch for it is in progress."""
        if tail.project_id not in self._fetches:
            task = asyncio.create_task(self._fill(tail), name="fill tail")
            self._fetches[tail.project_id] = task
            task.add_done_callback(lambda _: self._fetches.pop(tail.project_id, None))

    def restart(self, tail: Tail, head: int) -> None:
        """Continue the tail after `head`: the log was restored and lacks what the tail has."""
        self._held_back.pop(tail.project_id, None)
        tail.restart(head, EntryId(head, 0))
        self._publisher.heal(tail.project_id, "replace")
        self._reread(tail, EntryId(head, 0))

    def fetches(self) -> list[asyncio.Task[None]]:
        """Return the fetches in progress, for the owner to end."""
        return list(self._fetches.values())

    async def _fill(self, tail: Tail) -> None:
        try:
            while not await self._fill_page(tail):
                pass
        except StreamsError as error:
            if not isinstance(error, LogUnavailable):
                _log.warning(
                    "tail not filled", extra={"project_id": tail.project_id, "error": str(error)}
                )
            # The entries held back are dropped. Read the stream again from the tail's last
            # message on: the log does not have its transient entries.
            self._held_back.pop(tail.project_id, None)
            self._reread(tail, EntryId(tail.last_seq, 0))

    async def _fill_page(self, tail: Tail) -> bool:
        """Take one page of the log, then what was held back; tell whether nothing is left."""
        page = await self._log.slice(tail.project_id, after=tail.last_seq, limit=_PAGE)
        messages = page.messages
        offer_all(tail, message_entries(messages))
        tail.notify()
        left = offer_all(tail, self._held_back.pop(tail.project_id, []))
        tail.notify()
        if not left:
            self._observer.gap_healed()
            return len(messages) < _PAGE and not page.is_cut
        if not messages:
            # The stream is ahead of the log: a restored log. The heads poll decides.
            _log.warning("the window is ahead of the log", extra={"project_id": tail.project_id})
            return True
        self._held_back[tail.project_id] = left
        return False

    def _reread(self, tail: Tail, position: EntryId) -> None:
        for callback in self._on_reread:
            callback(tail, position)


def _keep_newest(entries: list[Entry]) -> None:
    """Drop the oldest entries above the bounds: the log has their messages."""
    del entries[:-_MAX_HELD_BACK]
    size = 0
    for index in range(len(entries) - 1, -1, -1):
        size += len(entries[index].data)
        if size > _MAX_HELD_BACK_BYTES:
            del entries[: index + 1]
            return
