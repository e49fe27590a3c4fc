"""Writing a project's new entries to all connections that stand at the end of its tail.

One loop per tail instead of one task per connection: the frames are joined once, framed for HTTP
once, and written to each transport. A connection that is blocked leaves the group and catches up
by itself, from where it stood.
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

# Written at once even within the pause, as is what takes half of the tail's bytes: beyond this,
# entries could leave memory before they are written, and every connection would have to read them
# again from below.
_MAX_UNWRITTEN = 256
# A project's writes take at most about one part in so many of the process's time: what takes long,
# for many connections or on a busy machine, is done less often, and with more in it.
_ONE_PART_IN = 2


class Member(Protocol):
    """What a broadcast needs of a connection that it writes to."""

    wire: Wire
    reader: Reader
    written_at: float

    def wake(self) -> None:
        """Let the connection look around: it is written to from here no more."""


class Broadcast:
    """The connections of one project in this process.

    `live` ones stand at `_index` and get each batch in one write; those in `ahead` have a cursor
    that this process's tail has not reached.
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
        """Take the bounds of the pause, and a clock of seconds that tells what a write takes.

        `replays` are those of the whole process.
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
        # The cursor of who stands at _index: what is below it may have left memory.
        self._seq = tail.last_seq
        self._generation = tail.generation
        # When the oldest entry came that is not written yet; none when all are.
        self._changed_at: float | None = None
        # Never as yet: the monotonic clock may stand anywhere, near 0 just after a boot too.
        self._written_at = float("-inf")
        self._scheduled: asyncio.Handle | None = None
        tail.listen(self._changed, self._signalled)

    def close(self) -> None:
        """Stop listening to the tail."""
        self.tail.unlisten(self._changed, self._signalled)
        if self._scheduled is not None:
            self._scheduled.cancel()

    def join(self, connection: Member) -> None:
        """Take in a connection that has read everything in the tail."""
        self._flush()
        self._live[connection] = None

    def wait(self, connection: Member) -> None:
        """Wake the connection at the next change."""
        self._ahead[connection] = None

    def leave(self, connection: Member) -> None:
        """Forget a connection; one that was live learns where it stood."""
        self._ahead.pop(connection, None)
        if connection in self._live:
            del self._live[connection]
            connection.reader.at(self._seq, self._index)

    def is_live(self, connection: Member) -> bool:
        """Whether the connection is written to from here."""
        return connection in self._live

    @property
    def pause_s(self) -> float:
        """The least time from one write to the next, in seconds: it grows with what one takes."""
        if self._coalesce_s == 0:
            return 0.0
        return min(max(self._coalesce_s, self._last_took_s * _ONE_PART_IN), self._coalesce_most_s)

    def _changed(self) -> None:
        if self._ahead:
            ahead, self._ahead = self._ahead, {}
            for connection in ahead:
                connection.wake()
        tail = self.tail
        if not self._live:
            self._stand_at_end()
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
                # The rest of what arrived in this turn of the loop goes along.
                self._scheduled = self._loop.call_soon(self._flush)
            else:
                self._scheduled = self._loop.call_at(due, self._flush)

    def _flush(self) -> None:
        if self._scheduled is not None:
            self._scheduled.cancel()
            self._scheduled = None
        tail = self.tail
        if self._live and (tail.generation != self._generation or self._index < tail.first_index):
            # The log was restored, or entries left memory unwritten: each finds its own way.
            self._detach(list(self._live))
        if not self._live or self._index == tail.end_index:
            self._stand_at_end()
            return
        changed_at = self._changed_at
        written = self._write(tail.frames(self._index))
        self._stand_at_end()
        self._written_at = self._loop.time()
        if written and changed_at is not None:
            self._metrics.publish_to_sse_write_ms.observe((self._clock() - changed_at) * 1000)

    def _stand_at_end(self) -> None:
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
        # Ephemeral: in order with what came before it, and only for those who keep up.
        self._flush()
        if self._live:
            self._write([frame])
