"""Frames on their way to clients: joined, framed for HTTP and counted once, whoever gets them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from service.http.wire import Chunk
from service.telemetry.metrics import Metrics
from streams.model import sse

_HEAD = b"event: "
_REPLAYS_KEPT = 16


class Outgoing:
    """Some frames as bytes, and how many there are of each event."""

    __slots__ = ("chunk", "counts")

    def __init__(self, frames: Sequence[bytes]) -> None:
        self.chunk = Chunk(b"".join(frames))
        self.counts: dict[bytes, int] = {}
        for frame in frames:
            # Others have no event: a delay, a cursor.
            if frame.startswith(_HEAD):
                event = frame[len(_HEAD) : frame.index(b"\n")]
                self.counts[event] = self.counts.get(event, 0) + 1

    def count(self, metrics: Metrics, connections: int) -> None:
        """Count it as written to so many connections."""
        metrics.delivered(self.counts, len(self.chunk.data), connections)


class Replays:
    """The last replays that were made: a crowd that comes back at once is sent the same one.

    Known by their frames, not by a place in a tail: there, others may come to stand. A frame
    keeps its hash, and the same frame is compared by identity.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[bytes, ...], Outgoing] = OrderedDict()

    def of(self, frames: Sequence[bytes]) -> Outgoing:
        """Return frames as they are replayed."""
        key = tuple(frames)
        made = self._kept.get(key)
        if made is None:
            made = self._kept[key] = Outgoing([sse.as_replay(frame) for frame in frames])
            if len(self._kept) > _REPLAYS_KEPT:
                self._kept.popitem(last=False)
        return made
