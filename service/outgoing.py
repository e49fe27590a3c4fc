"""Frames on their way to clients: joined, framed for HTTP and counted once, whoever gets them."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence

from service.wire import Chunk
from streams import sse
from streams.replay import Piece
from streams.tail import Tail

_HEAD = b"event: "
_REPLAYS_KEPT = 16


class Outgoing:
    """Some frames as bytes, and how many there are of each event."""

    __slots__ = ("chunk", "counts")

    def __init__(self, frames: Sequence[bytes]) -> None:
        self.chunk = Chunk(b"".join(frames))
        self.counts = Counter(_events(frames))


class Replays:
    """The last replays that were made: a crowd that comes back at once is sent the same one."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[Tail, int, int], Outgoing] = OrderedDict()

    def of(self, tail: Tail, piece: Piece) -> Outgoing:
        """Return a piece of a tail as it is replayed."""
        if piece.index is None:
            # From the log: it has no place in the tail to know it by.
            return _replay(piece)
        # A tail never uses an index again.
        key = (tail, piece.index, len(piece.frames))
        made = self._kept.get(key)
        if made is None:
            made = self._kept[key] = _replay(piece)
            if len(self._kept) > _REPLAYS_KEPT:
                self._kept.popitem(last=False)
        return made


def _replay(piece: Piece) -> Outgoing:
    return Outgoing([sse.as_replay(frame) for frame in piece.frames])


def _events(frames: Sequence[bytes]) -> Iterator[bytes]:
    for frame in frames:
        # Others have no event: a delay, a cursor.
        if frame.startswith(_HEAD):
            yield frame[len(_HEAD) : frame.index(b"\n")]
