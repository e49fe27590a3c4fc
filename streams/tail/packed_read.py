"""The XREAD command of a lane as bytes, of which a read repacks only the ids that changed.

An XREAD names many keys and ids, and one read changes one or two of the ids. Packing the whole
command for each read was two thirds of the cost of a message with 5,000 projects
(`bench/w5_projects.py`). Pure: sending it is the lane's duty (`lane.py`).

RESP (https://redis.io/docs/latest/develop/reference/protocol-spec/): a command is an array of bulk
strings.
"""

from __future__ import annotations

from streams.model.ids import EntryId
from streams.tail.tail import Tail


def bulk(value: bytes) -> bytes:
    """Return a bulk string of RESP."""
    return b"$%d\r\n%b\r\n" % (len(value), value)


class Followed:
    """A tail, and its position as it was last packed."""

    __slots__ = ("_packed", "_position", "tail")

    def __init__(self, tail: Tail) -> None:
        self.tail = tail
        self._position: EntryId | None = None
        self._packed = b""

    @property
    def is_as_packed(self) -> bool:
        """Whether the tail's position is the one that was packed last.

        Compared by identity: a position that was set since, even to an equal one, means that the
        stream is to be read again from there.
        """
        return self.tail.position is self._position

    def packed(self) -> bytes:
        """Return the tail's position, packed."""
        position = self.tail.position
        if position is not self._position:
            self._position = position
            self._packed = bulk(str(position).encode())
        return self._packed


class PackedRead:
    """A blocking XREAD over the streams of many tails and a few `further` keys."""

    def __init__(self, *, count: int, block_ms: int, further: tuple[str, ...]) -> None:
        self._options = b"".join(
            map(bulk, (b"XREAD", b"COUNT", b"%d" % count, b"BLOCK", b"%d" % block_ms, b"STREAMS"))
        )
        self._further = [key.encode() for key in further]
        self._followed: dict[bytes, Followed] = {}
        # Everything before the ids; none after a key was added or removed.
        self._head: bytes | None = None

    def __len__(self) -> int:
        return len(self._followed)

    def add(self, key: bytes, tail: Tail) -> None:
        """Add a tail's stream, read from the tail's position on."""
        self._followed[key] = Followed(tail)
        self._head = None

    def remove(self, key: bytes) -> None:
        """Remove a stream."""
        self._followed.pop(key, None)
        self._head = None

    def keys(self) -> list[bytes]:
        """Return the keys of the tails' streams."""
        return list(self._followed)

    def get(self, key: bytes) -> Followed | None:
        """Return the tail that follows a stream; none when the stream is not read."""
        return self._followed.get(key)

    def pack(self, *further_ids: bytes) -> bytes:
        """Return the command; `further_ids` are the ids of the `further` keys, in their order."""
        if self._head is None:
            keys = [*self._followed, *self._further]
            self._head = (
                b"*%d\r\n" % (6 + 2 * len(keys)) + self._options + b"".join(map(bulk, keys))
            )
        ids = [followed.packed() for followed in self._followed.values()]
        return b"".join((self._head, *ids, *map(bulk, further_ids)))
