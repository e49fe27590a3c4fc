"""Parses a streaming response into checked events: HTTP head, chunked framing, event scanning.

Pure: no sockets and no clocks. `SeqScanner` requires seqs that grow by exactly one (seqstream);
`MarkScanner` only counts (peers, whose ids have other meanings). Neither parses JSON, so that the
reader does not limit a run on two cores.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_left

from bench.harness.marks import MARK_BEGIN as _MARK_BEGIN
from bench.harness.marks import MARK_BYTES

_I = ord("i")
# Data is one line and ends with a bracket, so a number before a line end is an id.
_ID = re.compile(rb"id: (\d+)\n")
_STAMP = re.compile(rb"~T(\d{16})\.")
_LARGE_BYTES = 4096
_MAX_HEAD_BYTES = 65_536
_MAX_EVENT_BYTES = 1_048_576
_MAX_VIOLATIONS = 20
_MAX_CHECKED_BYTES = 1_048_576


class WireError(Exception):
    """The peer sent something other than an HTTP response with an event stream."""


class CheckedRun:
    """Bytes of consecutive messages that were checked once, for connections that get equal bytes.

    A thousand clients that resume get the same hundred messages. Comparing the bytes is as strict
    as scanning each copy, which would make the reader the bottleneck.
    """

    def __init__(self) -> None:
        self._first = 0
        self._body = b""
        self._stamps: list[bytes] = []
        # The end of each message in the body.
        self._ends: list[int] = []

    def keep(self, first: int, body: bytes, stamps: list[bytes]) -> None:
        """Keep complete, checked messages, from seq `first` on."""
        if first != self._first + len(self._stamps) or len(self._body) > _MAX_CHECKED_BYTES:
            self._first, self._body, self._stamps, self._ends = first, b"", [], []
        end = len(self._body)
        for event in body.split(b"\n\n")[:-1]:
            end += len(event) + 2
            self._ends.append(end)
        self._body += body
        self._stamps += stamps

    def same(self, first: int, body: bytes) -> list[bytes] | None:
        """Return the stamps if the body equals complete messages of the run, else None."""
        place = first - self._first
        if not 0 <= place < len(self._stamps):
            return None
        start = self._ends[place - 1] if place else 0
        if not self._body.startswith(body, start):
            return None
        last = bisect_left(self._ends, start + len(body), place)
        if last == len(self._ends) or self._ends[last] != start + len(body):
            return None
        return self._stamps[place : last + 1]


class Tally:
    """The counts of all connections of one reader process."""

    def __init__(self) -> None:
        self.checked = CheckedRun()
        self.deliveries = 0
        self.received_bytes = 0
        self.reads = 0
        self.latencies_us = array("q")
        self.violations: list[str] = []
        self.violation_count = 0
        self.keep_latencies = True

    def violate(self, text: str) -> None:
        """Count a violation; the texts of the first ones are kept."""
        self.violation_count += 1
        if len(self.violations) < _MAX_VIOLATIONS:
            self.violations.append(text)

    def record(self, stamp: bytes, now_ns: int) -> None:
        """Count a message whose post began at `stamp` and which was read at `now_ns`."""
        self.deliveries += 1
        if self.keep_latencies:
            self.latencies_us.append((now_ns - int(stamp)) // 1000)

    def record_many(self, stamps: list[bytes], now_ns: int) -> None:
        """Count messages that were read together."""
        self.deliveries += len(stamps)
        if self.keep_latencies:
            self.latencies_us.extend([(now_ns - int(stamp)) // 1000 for stamp in stamps])


class ResponseBody:
    """Incremental parser of one HTTP/1.1 response: the head, then body bytes as received."""

    def __init__(self) -> None:
        self.status = 0
        self.ended = False
        self._head = b""
        self._chunked = False
        self._left = 0
        self._skip = 0
        self._size_line = b""

    def feed(self, data: bytes) -> bytes:
        """Parse received bytes; return the body bytes in them, without framing.

        Raises `WireError` when they are not an HTTP response.
        """
        if not self.status:
            data = self._read_head(data)
        if not self._chunked or not data:
            return data
        return self._dechunk(data)

    def _read_head(self, data: bytes) -> bytes:
        head, end, rest = (self._head + data).partition(b"\r\n\r\n")
        if not end:
            if len(head) > _MAX_HEAD_BYTES:
                raise WireError("endless response head")
            self._head = head
            return b""
        lines = head.split(b"\r\n")
        words = lines[0].split(b" ", 2)
        if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():
            raise WireError(f"not an HTTP response: {lines[0][:80]!r}")
        self.status = int(words[1])
        self._head = b""
        for line in lines[1:]:
            name, _, value = line.partition(b":")
            if name.strip().lower() == b"transfer-encoding":
                self._chunked = value.strip().lower() == b"chunked"
        return rest

    def _dechunk(self, data: bytes) -> bytes:
        if not (self._left or self._skip or self._size_line):
            # Fast path: a read is nearly always one complete chunk.
            line_end = data.find(b"\r\n")
            if line_end > 0:
                size = _chunk_size(data[:line_end])
                if size and line_end + 4 + size == len(data):
                    return data[line_end + 2 : -2]
        if self._size_line:
            data = self._size_line + data
            self._size_line = b""
        pieces: list[bytes] = []
        position = 0
        end = len(data)
        while position < end and not self.ended:
            if self._left:
                stop = position + self._left
                pieces.append(data[position:stop])
                self._left = max(stop - end, 0)
                position = min(stop, end)
                self._skip = 2
            elif self._skip:
                step = min(self._skip, end - position)
                position += step
                self._skip -= step
            else:
                line_end = data.find(b"\r\n", position)
                if line_end < 0:
                    self._size_line = data[position:]
                    break
                self._left = _chunk_size(data[position:line_end])
                self.ended = self._left == 0
                position = line_end + 2
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _chunk_size(line: bytes) -> int:
    try:
        return int(line.split(b";", 1)[0], 16)
    except ValueError as error:
        raise WireError(f"bad chunk size: {line[:40]!r}") from error


class SeqScanner:
    """Checks that a seqstream stream has every seq once and in order.

    The first `id` (that of `stream.open`) is the cursor; every marked message after it must have
    the next seq. Incomplete events are kept until more bytes are received.
    """

    def __init__(self, tally: Tally, label: str) -> None:
        self._tally = tally
        self._label = label
        self._rest = b""
        self.last_seq: int | None = None
        self.count = 0
        self.live = False
        self.refused = False

    def feed(self, body: bytes, now_ns: int) -> None:
        """Scan body bytes that were read at `now_ns` (monotonic)."""
        if self._rest:
            body = self._rest + body
        if len(body) > _LARGE_BYTES:
            # Fast path, so that the reader does not limit a crowd that resumes.
            start, stop = _bounds(body)
            self._events(body[:start], now_ns)
            if not self._run_of_messages(body[start:stop], now_ns):
                self._events(body[start:stop], now_ns)
            body = body[stop:]
        self._rest = self._events(body, now_ns)
        if len(self._rest) > _MAX_EVENT_BYTES:
            raise WireError("endless event")

    def _events(self, body: bytes, now_ns: int) -> bytes:
        """Scan event by event; return the bytes after the last complete one."""
        events = body.split(b"\n\n")
        rest = events.pop()
        for event in events:
            mark = event.find(_MARK_BEGIN)
            if mark < 0:
                self._other(event)
                continue
            # The id is the last line: the data is one line before it.
            line = event.rfind(b"\n") + 1
            seq = int(event[line + 4 :]) if event[line] == _I else None
            if seq is None or self.last_seq is None or seq != self.last_seq + 1:
                self._tally.violate(f"{self._label}: seq {seq} after {self.last_seq}")
            self.last_seq = seq
            self.count += 1
            self._tally.record(event[mark + 2 : mark + 18], now_ns)
        return rest

    def _run_of_messages(self, body: bytes, now_ns: int) -> bool:
        """Scan a body of complete messages in order; for any other do nothing and return False."""
        if self.last_seq is None:
            return False
        first = self.last_seq + 1
        stamps = self._tally.checked.same(first, body)
        if stamps is None:
            seqs = [int(text) for text in _ID.findall(body)]
            stamps = _STAMP.findall(body)
            count = body.count(b"\n\n")
            if len(stamps) != count or seqs != list(range(first, first + count)):
                return False
            self._tally.checked.keep(first, body, stamps)
        count = len(stamps)
        self.last_seq += count
        self.count += count
        self._tally.record_many(stamps, now_ns)
        return True

    def _other(self, event: bytes) -> None:
        """Scan an event other than a marked message: the prologue, a heartbeat, an end."""
        lines = event.split(b"\n")
        if self.last_seq is None:
            for line in lines:
                if line.startswith(b"id: "):
                    self.last_seq = int(line[4:])
        if b"event: stream.live" in lines:
            self.live = True
        elif b"event: stream.refused" in lines or b"event: stream.reset" in lines:
            self.refused = True
            self._tally.violate(f"{self._label}: refused or reset")
        elif b"event: stream.closing" in lines or b"event: replay.end" in lines:
            self._tally.violate(f"{self._label}: closed, or messages left out")


def _bounds(body: bytes) -> tuple[int, int]:
    """Return the bounds of the complete marked events in a body, or (0, 0) for none."""
    first = body.find(_MARK_BEGIN)
    if first < 0:
        return 0, 0
    before = body.rfind(b"\n\n", 0, first)
    start = before + 2 if before >= 0 else 0
    end = body.find(b"\n\n", body.rfind(_MARK_BEGIN))
    if end < 0:
        # The last event is incomplete; those before it are complete.
        end = body.rfind(b"\n\n")
    return (start, end + 2) if end >= start else (0, 0)


class MarkScanner:
    """Counts the marked messages of a peer's stream, and sums their numbers.

    A loss changes the count, the sum or both, unless repeats have exactly the lost numbers' count
    and sum.
    """

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._rest = b""
        self.count = 0
        self.number_sum = 0

    def feed(self, body: bytes, now_ns: int) -> None:
        """Scan body bytes that were read at `now_ns` (monotonic)."""
        if self._rest:
            body = self._rest + body
        done = 0
        last = len(body) - MARK_BYTES
        mark = body.find(_MARK_BEGIN)
        while 0 <= mark <= last:
            self.count += 1
            self.number_sum += int(body[mark + 19 : mark + 28])
            self._tally.record(body[mark + 2 : mark + 18], now_ns)
            done = mark + MARK_BYTES
            mark = body.find(_MARK_BEGIN, done)
        # The end may split a mark.
        self._rest = body[max(done, last + 1) :]
