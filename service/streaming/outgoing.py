"""Frames to be sent: joined, chunked for HTTP and counted once for all clients that get them."""

from __future__ import annotations

from collections.abc import Sequence

from service.http.wire import Chunk
from service.telemetry.metrics import Metrics
from streams.model import sse
from streams.model.lru_map import LruMap

_HEAD = b"event: "
_REPLAYS_KEPT = 16


class Outgoing:
    """Some frames as bytes, and how many there are of each event."""

    __slots__ = ("chunk", "counts")

    def __init__(self, frames: Sequence[bytes]) -> None:
        self.chunk = Chunk(b"".join(frames))
        self.counts: dict[bytes, int] = {}
        for frame in frames:
            event = frame[len(_HEAD) : frame.index(b"\n")]
            self.counts[event] = self.counts.get(event, 0) + 1

    def count(self, metrics: Metrics, connections: int) -> None:
        """Count it as written to `connections` connections."""
        metrics.delivered(self.counts, len(self.chunk.data), connections)


class Replays:
    """The last replays that were made: clients that reconnect at once are sent the same bytes.

    Keyed by frame contents: a tail index may later refer to other frames. A frame keeps its hash,
    and the same frame is compared by identity.
    """

    def __init__(self) -> None:
        self._kept = LruMap[tuple[bytes, ...], Outgoing](_REPLAYS_KEPT)

    def of(self, frames: Sequence[bytes]) -> Outgoing:
        """Return frames as they are replayed."""
        key = tuple(frames)
        made = self._kept.peek(key)
        if made is None:
            made = Outgoing([sse.as_replay(frame) for frame in frames])
            self._kept.put(key, made)
        return made
