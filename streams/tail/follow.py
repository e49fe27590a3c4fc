"""Following a project inside the library: a reader's frames as events, one after the other.

The service does not use it: its connections write the frames as they are (`service/streaming`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

import msgspec

from streams.model import sse
from streams.model.errors import Closed, Unavailable
from streams.model.events import Event
from streams.model.ids import EntryId
from streams.tail.lower_tiers import LowerTiers
from streams.tail.reader import Reader
from streams.tail.registry import TailRegistry

# The id of what was read from the database because Redis did not deliver it (a build's status, an
# answer so far): it is not an entry of the stream and has no id there.
_NOT_IN_WINDOW = EntryId(0, 1)


class _HasEntryId(msgspec.Struct):
    entryId: str | None = None  # noqa: N815


async def follow(
    tails: TailRegistry,
    lower: LowerTiers,
    project_id: str,
    *,
    after: int | None,
    is_closed: Callable[[], bool],
) -> AsyncIterator[Event]:
    """Yield the events after message `after` (none: from now on) until cancelled.

    Raises:
        ProjectNotFound, LogUnavailable: see `TailRegistry.reading`.
        LogRestored: the log was restored from a backup and lacks what was yielded.
        Closed: `is_closed` returned true after the tail's listeners were notified.
    """
    changed = asyncio.Event()
    async with tails.reading(project_id) as tail:
        reader = Reader(tail, lower, tail.last_seq if after is None else after)
        if after is None:
            reader.at(tail.last_seq, tail.end_index)
        tail.listen(changed.set, _ignore)
        try:
            while not is_closed():
                changed.clear()
                try:
                    piece = await reader.read()
                except Unavailable as error:
                    await asyncio.sleep(error.retry_after_s)
                    continue
                for event in _events(piece.frames):
                    yield event
                if not piece.frames:
                    await changed.wait()
        finally:
            tail.unlisten(changed.set, _ignore)
    raise Closed("the log is closed")


def _ignore(_: bytes) -> None:
    """Ephemeral events are not part of what is followed."""


def _events(frames: Sequence[bytes]) -> list[Event]:
    events = []
    for frame in frames:
        name, seq = sse.name_and_id(frame)
        data = sse.data_of(frame)
        if seq is not None:
            entry_id = EntryId(seq, 0)
        else:
            written = msgspec.json.decode(data, type=_HasEntryId).entryId
            entry_id = _NOT_IN_WINDOW if written is None else EntryId.parse(written.encode())
        events.append(Event(entry_id, name, data))
    return events
