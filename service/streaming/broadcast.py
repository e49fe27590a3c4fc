"""Writing a project's new entries to all connections that have read its tail to the end.

One loop per tail instead of one task per connection: the frames are joined once, chunked for HTTP
once, and written to each transport. A connection whose socket is blocked leaves the broadcast and
catches up in its own task, from its position.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from service.http.wire import Wire
from service.streaming.outgoing import Outgoing, Replays
from service.telemetry.metrics import Metrics
from streams.tail.reader import Reader
from streams.tail.tail import Tail

# With more unwritten entries than this, or with half of the tail's bytes unwritten, a pause is cut
# short: entries could leave memory unwritten, and every connection would read them from Redis.
_MAX_UNWRITTEN = 256
# The pause is at least this many times the last write's duration. Slow writes (many connections, a
# busy machine) thus happen less often, with more entries in each.
_PAUSE_PER_WRITE = 2


class Member(Protocol):
    """What a broadcast needs of a connection that it writes to."""

    wire: Wire
    reader: Reader
    written_at: float

    def wake(self) -> None:
        """Wake the connection's task: the broadcast no longer writes to it."""


OnWrite = Callable[[int, int, int, float], None]
"""Called after a write: first index, end index, how many connections took it, its seconds."""


class Broadcast:
    """The connections of one project in this process.

    Those in `_live` are at `_index` and get each batch in one write. Those in `_ahead` have a
    cursor that this process's tail has not reached.
    """

    def __init__(
        self,
        tail: Tail,
        metrics: Metrics,
        replays: Replays,
        coalesce_s: float,
        coalesce_most_s: float = 0.0,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Take the bounds of the pause, and a clock of seconds that measures writes.

        `replays` is shared by the whole process.
        """
        self.tail = tail
        self.replays = replays
        self._metrics = metrics
        self._coalesce_s = coalesce_s
        self._coalesce_most_s = max(coalesce_s, coalesce_most_s)
        self._clock = clock
        self._last_took_s = 0.0
        self._loop = asyncio.get_running_loop()
        self._live: dict[Member, None] = {}
        self._ahead: dict[Member, None] = {}
        self._index = tail.end_index
        self._bytes = tail.appended_bytes
        # The cursor of a connection at _index: the entry of that seq may have left memory.
        self._seq = tail.last_seq
        self._generation = tail.generation
        # When the oldest unwritten entry arrived; None when all are written.
        self._changed_at: float | None = None
        # Not yet written. Not 0: the monotonic clock is near 0 just after a boot.
        self._written_at = float("-inf")
        self._scheduled: asyncio.Handle | None = None
        # Set while somebody looks at when entries are written; none as a rule.
        self.on_write: OnWrite | None = None
        tail.listen(self._changed, self._signalled)

    def close(self) -> None:
        """Stop listening to the tail."""
        self.tail.unlisten(self._changed, self._signalled)
        if self._scheduled is not None:
            self._scheduled.cancel()

    def join(self, connection: Member) -> None:
        """Add a connection that has read everything in the tail."""
        self._flush()
        self._live[connection] = None

    def wait(self, connection: Member) -> None:
        """Wake the connection at the next change."""
        self._ahead[connection] = None

    def leave(self, connection: Member) -> None:
        """Remove a connection; a live one's reader is set to its position."""
        self._ahead.pop(connection, None)
        if connection in self._live:
            del self._live[connection]
            connection.reader.at(self._seq, self._index)

    def is_live(self, connection: Member) -> bool:
        """Whether the broadcast writes to the connection."""
        return connection in self._live

    def is_ahead(self, connection: Member) -> bool:
        """Whether the connection's cursor is one that this process's tail has not reached."""
        return connection in self._ahead

    @property
    def has_live(self) -> bool:
        """Whether there is a connection to write to."""
        return bool(self._live)

    @property
    def written_seq(self) -> int:
        """The last message that was written to the live connections."""
        return self._seq

    @property
    def pause_s(self) -> float:
        """The least time between two writes, in seconds; it grows with the duration of a write."""
        if self._coalesce_s == 0:
            return 0.0
        return min(
            max(self._coalesce_s, self._last_took_s * _PAUSE_PER_WRITE), self._coalesce_most_s
        )

    def _changed(self) -> None:
        if self._ahead:
            ahead, self._ahead = self._ahead, {}
            for connection in ahead:
                connection.wake()
        tail = self.tail
        if not self._live:
            self._move_to_end()
            return
        if self._changed_at is None:
            self._changed_at = self._clock()
        if (
            tail.end_index - self._index > _MAX_UNWRITTEN
            or (tail.appended_bytes - self._bytes) * 2 > tail.max_bytes
            or tail.generation != self._generation
        ):
            self._flush()
        elif self._scheduled is None:
            due = self._written_at + self.pause_s
            if due <= self._loop.time():
                # Entries that still arrive in this turn of the loop go in the same write.
                self._scheduled = self._loop.call_soon(self._flush)
            else:
                self._scheduled = self._loop.call_at(due, self._flush)

    def _flush(self) -> None:
        if self._scheduled is not None:
            self._scheduled.cancel()
            self._scheduled = None
        tail = self.tail
        if self._live and (tail.generation != self._generation or self._index < tail.trimmed_index):
            # The log was restored, or entries left memory unwritten: each one reads by itself.
            self._detach(list(self._live))
        if not self._live or self._index == tail.end_index:
            self._move_to_end()
            return
        changed_at = self._changed_at
        written = self._write(tail.frames(self._index))
        if self.on_write is not None:
            self.on_write(self._index, tail.end_index, written, self._last_took_s)
        self._move_to_end()
        self._written_at = self._loop.time()
        if written and changed_at is not None:
            self._metrics.publish_to_sse_write_ms.observe((self._clock() - changed_at) * 1000)

    def _move_to_end(self) -> None:
        self._index = self.tail.end_index
        self._bytes = self.tail.appended_bytes
        self._seq = self.tail.last_seq
        self._generation = self.tail.generation
        self._changed_at = None

    def _write(self, frames: Sequence[bytes]) -> int:
        outgoing = Outgoing(frames)
        chunk = outgoing.chunk
        blocked: list[Member] = []
        now = self._loop.time()
        written = 0
        began_s = self._clock()
        for connection in self._live:
            if connection.wire.offer(chunk):
                connection.written_at = now
                written += 1
            else:
                blocked.append(connection)
        self._last_took_s = self._clock() - began_s
        if blocked:
            self._detach(blocked)
        outgoing.count(self._metrics, written)
        return written

    def _detach(self, connections: Sequence[Member]) -> None:
        for connection in connections:
            self.leave(connection)
            connection.wake()

    def _signalled(self, frame: bytes) -> None:
        # Ephemeral events come after all earlier entries, and only reach live connections.
        self._flush()
        if self._live:
            self._write([frame])
