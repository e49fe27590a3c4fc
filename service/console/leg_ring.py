"""The newest events of one project with the time of each leg, in a bounded ring. Pure.

The caller brings the times. When a ring exists, and what fills it, is in `leg_watch.py`.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime

import msgspec

from streams.model.ids import EntryId

KEPT = 500
# An event that no connection took by then is shown as it is: the longest pause of a broadcast is
# shorter.
_SETTLED_AFTER_US = 1_000_000


class LegRow(msgspec.Struct, frozen=True, rename="camel"):
    """One event and when it came where, in milliseconds since its commit.

    Commits have the database's clock, the other times those of the processes: between machines
    they differ by what the clocks do. Null: it did not come that way, or the time is not known.
    `connections` is how many live connections the broadcast wrote it to.
    """

    n: int
    id: str
    event: str
    user_id: str | None
    bytes: int
    committed_at: str | None
    published_ms: float | None
    arrived_ms: float | None
    first_write_ms: float | None
    last_write_ms: float | None
    connections: int | None


class _Leg:
    __slots__ = (
        "arrived_us",
        "bytes",
        "committed_at",
        "committed_us",
        "connections",
        "event",
        "first_us",
        "id",
        "index",
        "last_us",
        "n",
        "published_us",
        "user_id",
    )

    def __init__(self, n: int, index: int, frame: bytes, arrived_us: int) -> None:
        self.n = n
        self.index = index
        self.bytes = len(frame)
        self.arrived_us = arrived_us
        self.published_us: int | None = None
        self.first_us: int | None = None
        self.last_us: int | None = None
        self.connections: int | None = None
        self.event, data = _read(frame)
        self.id = data.entryId or (f"{data.seq}-0" if data.seq is not None else "")
        self.user_id = data.userId
        self.committed_at = data.timestamp
        self.committed_us = _unix_us(data.timestamp)


class _Data(msgspec.Struct):
    seq: int | None = None
    entryId: str | None = None  # noqa: N815
    userId: str | None = None  # noqa: N815
    timestamp: str | None = None


class LegRing:
    """The last `KEPT` events. `n` counts them from 1 as long as the ring exists."""

    def __init__(self, clock_us: Callable[[], int]) -> None:
        """Take a clock of unix time in microseconds."""
        self._clock_us = clock_us
        self._legs: deque[_Leg] = deque(maxlen=KEPT)
        self._count = 0

    def arrived(self, first_index: int, frames: Sequence[bytes], *, has_live: bool) -> None:
        """Note entries that came into the tail; without live connections nothing is written."""
        now_us = self._clock_us()
        skipped = max(0, len(frames) - KEPT)
        self._count += skipped
        for offset, frame in enumerate(frames[skipped:], first_index + skipped):
            self._count += 1
            leg = _Leg(self._count, offset, frame, now_us)
            if not has_live:
                leg.connections = 0
            self._legs.append(leg)

    def written(self, first_index: int, end_index: int, connections: int, took_s: float) -> None:
        """Note that a write of these entries has just ended, which lasted `took_s`."""
        last_us = self._clock_us()
        for leg in reversed(self._legs):
            if leg.index < first_index:
                return
            if leg.index < end_index:
                leg.connections = connections
                if connections:
                    leg.first_us = last_us - int(took_s * 1_000_000)
                    leg.last_us = last_us

    def published(self, times_us: Mapping[EntryId, int]) -> None:
        """Note when entries were published."""
        by_id = {str(entry_id): at_us for entry_id, at_us in times_us.items() if at_us}
        for leg in self._legs:
            if leg.published_us is None:
                leg.published_us = by_id.get(leg.id)

    def settled(self, after: int) -> list[LegRow]:
        """Return the events after number `after`, up to the first that may still be written.

        Their publishing may not be known yet; see `first_unpublished`.
        """
        return [_row(leg) for leg in self._settled(after)]

    def first_unpublished(self, after: int) -> EntryId | None:
        """Return the id of the first settled event whose publishing is not known."""
        for leg in self._settled(after):
            if leg.published_us is None and leg.id:
                return EntryId.parse(leg.id.encode())
        return None

    def _settled(self, after: int) -> Iterable[_Leg]:
        old_us = self._clock_us() - _SETTLED_AFTER_US
        for leg in self._legs:
            if leg.n <= after:
                continue
            if leg.connections is None and leg.arrived_us > old_us:
                return
            yield leg


def _row(leg: _Leg) -> LegRow:
    return LegRow(
        n=leg.n,
        id=leg.id,
        event=leg.event,
        user_id=leg.user_id,
        bytes=leg.bytes,
        committed_at=leg.committed_at,
        published_ms=_since(leg, leg.published_us),
        arrived_ms=_since(leg, leg.arrived_us),
        first_write_ms=_since(leg, leg.first_us),
        last_write_ms=_since(leg, leg.last_us),
        connections=leg.connections,
    )


def _since(leg: _Leg, at_us: int | None) -> float | None:
    if at_us is None or leg.committed_us is None:
        return None
    return (at_us - leg.committed_us) / 1000


def _read(frame: bytes) -> tuple[str, _Data]:
    """Return the event's name and the fields of its data that are no content."""
    event, data = "", b""
    for line in frame.split(b"\n"):
        if line.startswith(b"event: "):
            event = line[7:].decode()
        elif line.startswith(b"data: "):
            data = line[6:]
    try:
        return event, msgspec.json.decode(data, type=_Data)
    except msgspec.DecodeError:
        return event, _Data()


def _unix_us(timestamp: str | None) -> int | None:
    if timestamp is not None:
        with contextlib.suppress(ValueError):
            return round(datetime.fromisoformat(timestamp).timestamp() * 1_000_000)
    return None
