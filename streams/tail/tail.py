"""The tail: the newest entries of one project as ready SSE frames, in this process's memory.

No I/O. It keeps messages contiguous (invariant I3, docs/design.md): an entry that does not meet the
last one is refused with `Offered.GAP`, and `gap_filler.py` fetches what is between. A reader is an
index into the tail: `index_after` returns its first, `frames` what follows it, and a reader whose
index is below `first_index` was too slow. Nothing is queued per reader.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from itertools import islice

from streams.model import sse
from streams.model.ids import EntryId
from streams.window.window import Entry

MAX_ENTRIES = 1024
MAX_BYTES = 1024 * 1024


class Offered(Enum):
    """The outcome of offering an entry to a tail."""

    TAKEN = "taken"
    REPEAT = "repeat"
    GAP = "gap"


class Tail:
    """The newest entries of one project.

    Everything after `floor` up to `last_seq` is in memory. `position` is how far the project's
    stream was read. Each entry gets the next index; from `trimmed_index` on, an index is never used
    for another entry. Entries that `extend_down` adds get smaller indices.
    """

    def __init__(
        self,
        project_id: str,
        *,
        last_seq: int,
        position: EntryId,
        max_entries: int = MAX_ENTRIES,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self.project_id = project_id
        self.floor = position
        self.position = position
        self.last_seq = last_seq
        self.first_index = 0
        # Below it an index may stand for another entry than before: `extend_down` puts there what
        # the window has, and entries of `put` are not in the window. Infinite until the first trim.
        self.trimmed_index = float("-inf")
        # How often entries were added below.
        self.extensions = 0
        # How often the log was restored to an earlier state, and its head after the last time.
        self.generation = 0
        self.restored_head = 0
        self.size_bytes = 0
        # Bytes appended since the start: the difference of two values is what came in between.
        self.appended_bytes = 0
        self.max_bytes = max_bytes
        self._max_entries = max_entries
        self._frames: deque[bytes] = deque()
        self._ids: deque[EntryId] = deque()
        # Indices of the messages low_seq..last_seq, so that a seq is found without a search.
        self._message_indices: deque[int] = deque()
        self._listeners: list[Callable[[], None]] = []
        self._signal_listeners: list[Callable[[bytes], None]] = []

    @property
    def end_index(self) -> int:
        """The index that the next entry at the end will get."""
        return self.first_index + len(self._frames)

    @property
    def _is_over_bounds(self) -> bool:
        return len(self._frames) > self._max_entries or self.size_bytes > self.max_bytes

    @property
    def low_seq(self) -> int:
        """The lowest message in memory; `last_seq + 1` when there is none."""
        return self.last_seq - len(self._message_indices) + 1

    def offer(self, entry: Entry) -> Offered:
        """Append an entry if it meets the last one. Call `notify` after a batch."""
        seq, k = entry.id
        if k == 0:
            if seq <= self.last_seq:
                return Offered.REPEAT
            if seq != self.last_seq + 1:
                return Offered.GAP
            self._message_indices.append(self.end_index)
            self.last_seq = seq
            frame = sse.message_frame(seq, entry.data)
        else:
            if seq > self.last_seq:
                return Offered.GAP
            frame = sse.event_frame(entry.event, entry.data)
        self._frames.append(frame)
        self._ids.append(entry.id)
        self.size_bytes += len(frame)
        self.appended_bytes += len(frame)
        return Offered.TAKEN

    def put(self, event: str, data: bytes) -> None:
        """Append a transient entry that is in no stream. Call `notify` after a batch.

        Its id is the position up to which the stream was read: later entries come after it.
        """
        seq, k = self.position
        entry_id = EntryId(self.last_seq, max(1, k if seq == self.last_seq else 0))
        taken = self.offer(Entry(entry_id, event, data, 0))
        assert taken is Offered.TAKEN

    def extend_down(self, entries: Sequence[Entry], new_floor: EntryId) -> None:
        """Add entries below the floor: all that exist after `new_floor` up to the floor."""
        below = [entry for entry in entries if new_floor < entry.id <= self.floor]
        for entry in reversed(below):
            self.first_index -= 1
            if entry.id.k == 0:
                self._message_indices.appendleft(self.first_index)
                frame = sse.message_frame(entry.id.seq, entry.data)
            else:
                frame = sse.event_frame(entry.event, entry.data)
            self._frames.appendleft(frame)
            self._ids.appendleft(entry.id)
            self.size_bytes += len(frame)
        self.floor = new_floor
        self.extensions += 1

    def covers(self, cursor: int) -> bool:
        """Tell whether everything after message `cursor` is in memory."""
        return self.floor <= EntryId(cursor, 0) and cursor <= self.last_seq

    def index_after(self, cursor: int) -> int:
        """Return the index of the first entry after message `cursor`, which must be covered."""
        low = self.low_seq
        if cursor < low:
            return self.first_index
        return self._message_indices[cursor - low] + 1

    def frames(self, start: int, end: int | None = None) -> list[bytes]:
        """Return the frames from index `start` to `end` (exclusive; none: all that follow)."""
        first = start - self.first_index
        count = None if end is None else end - self.first_index
        if first == len(self._frames):
            return []
        if first > len(self._frames) // 2:
            # A deque is slow in its middle: read the newest frames from the right.
            newest = list(islice(reversed(self._frames), len(self._frames) - first))
            newest.reverse()
            return newest if count is None else newest[: count - first]
        return list(islice(self._frames, first, count))

    def seq_before(self, index: int) -> int:
        """Return the last message before `index`, which must be in memory."""
        assert index >= self.first_index
        low, high = 0, len(self._message_indices)
        while low < high:
            middle = (low + high) // 2
            if self._message_indices[middle] < index:
                low = middle + 1
            else:
                high = middle
        return self.low_seq + low - 1

    def trim(self) -> None:
        """Drop the oldest entries above the bounds. The newest entry is always kept."""
        while len(self._frames) > 1 and self._is_over_bounds:
            frame = self._frames.popleft()
            self.floor = max(self.floor, self._ids.popleft())
            self.size_bytes -= len(frame)
            if self._message_indices and self._message_indices[0] == self.first_index:
                self._message_indices.popleft()
            self.first_index += 1
            self.trimmed_index = max(self.trimmed_index, self.first_index)

    def restart(self, last_seq: int, position: EntryId) -> None:
        """Drop all entries and continue after `last_seq`: the log was restored to that head.

        Readers notice by `generation`.
        """
        self.generation += 1
        self.restored_head = last_seq
        self.trimmed_index = self.first_index = self.end_index
        self._frames.clear()
        self._ids.clear()
        self._message_indices.clear()
        self.size_bytes = 0
        self.last_seq = last_seq
        self.position = position
        self.floor = max(position, EntryId(last_seq, 0))
        self.notify()

    # Listeners are called once per batch, in the loop's thread; they must not block or raise.

    def listen(self, changed: Callable[[], None], signalled: Callable[[bytes], None]) -> None:
        """Call `changed` after entries were added, and `signalled` with each ephemeral frame."""
        self._listeners.append(changed)
        self._signal_listeners.append(signalled)

    def unlisten(self, changed: Callable[[], None], signalled: Callable[[bytes], None]) -> None:
        """Remove the listeners."""
        self._listeners.remove(changed)
        self._signal_listeners.remove(signalled)

    def notify(self) -> None:
        """Call the listeners after entries were added, then trim."""
        for listener in tuple(self._listeners):
            listener()
        self.trim()

    def signal(self, frame: bytes) -> None:
        """Pass an ephemeral frame to the listeners; it is not kept."""
        for listener in tuple(self._signal_listeners):
            listener(frame)


def offer_all(tail: Tail, entries: Iterable[Entry]) -> list[Entry]:
    """Offer entries in order; return those from the first gap on. Does not call `notify`."""
    iterator = iter(entries)
    for entry in iterator:
        if tail.offer(entry) is Offered.GAP:
            return [entry, *iterator]
    return []
