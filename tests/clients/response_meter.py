"""Finds the place in the bytes of HTTP/1.1 responses where a cut is due, and counts SSE blocks.

Pure: it is fed bytes and does no I/O. It reads chunked bodies, bodies of a known length, and
bodies that end with the connection; of SSE it knows lines, blocks and the names of events. Lines
that end with a single CR are not recognized.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from enum import Enum, auto

import msgspec

_HEAD_BYTES = 65_536
_LINE_BYTES = 256  # of a line of the body, only its start is kept


class Cut(msgspec.Struct, frozen=True):
    """Where a connection is to be cut, counted from when the cut is set; exactly one of the three.

    `head`: after a response's head. `blocks`: after so many SSE blocks, and the chunk that the last
    of them is in: HTTP libraries hand on whole chunks. `body_bytes`: after so many bytes of bodies.
    `reset` cuts with RST, otherwise the connection ends without the end of the body. `hold`: new
    connections wait until the proxy is released.
    """

    head: bool = False
    blocks: int = 0
    body_bytes: int = 0
    reset: bool = True
    hold: bool = False


class _State(Enum):
    HEAD = auto()
    CHUNK_SIZE = auto()
    CHUNK = auto()
    CHUNK_END = auto()
    TRAILER = auto()
    LENGTH = auto()
    UNTIL_END = auto()


class ResponseMeter:
    """Reads the responses of one connection. `heads`, `statuses` and `events` are what it saw."""

    def __init__(self) -> None:
        self.heads = 0
        self.statuses: Counter[int] = Counter()
        self.events: Counter[str] = Counter()
        self._blocks = 0
        self._body_bytes = 0
        self._state = _State.HEAD
        self._buffer = bytearray()  # a head, or a line about a chunk, that is not complete
        self._remaining = 0
        self._line = bytearray()
        self._event = ""
        self._has_lines = False
        self.cut: Cut | None = None
        self._due = (0, 0, 0)

    def set_cut(self, cut: Cut) -> None:
        """Set the cut, counted from here."""
        self.cut = cut
        self._due = (
            self.heads + cut.head,
            self._blocks + cut.blocks,
            self._body_bytes + cut.body_bytes,
        )

    def feed(self, data: bytes) -> int | None:
        """Take the next bytes; return how many of them precede the cut, or None without one."""
        position = 0
        while position < len(data):
            position += self._step(data, position)
            if self._is_due():
                return position
        return None

    def _is_due(self) -> bool:
        cut = self.cut
        if cut is None:
            return False
        heads, blocks, body_bytes = self._due
        if cut.head:
            return self.heads >= heads
        if cut.blocks:
            in_chunk = self._state in (_State.CHUNK, _State.CHUNK_END)
            return self._blocks >= blocks and not in_chunk
        return self._body_bytes >= body_bytes

    def _step(self, data: bytes, start: int) -> int:
        """Take bytes up to the next place where something ends; return how many."""
        match self._state:
            case _State.HEAD:
                return self._until(data, start, b"\r\n\r\n", self._end_head)
            case _State.CHUNK_SIZE:
                return self._until(data, start, b"\r\n", self._end_chunk_size)
            case _State.CHUNK_END:
                return self._until(data, start, b"\r\n", self._end_chunk)
            case _State.TRAILER:
                return self._until(data, start, b"\r\n", self._end_trailer)
            case _State.UNTIL_END:
                return self._body(data, start, len(data))
            case _State.CHUNK | _State.LENGTH:
                taken = self._body(data, start, min(len(data), start + self._remaining))
                self._remaining -= taken
                if not self._remaining:
                    chunk = self._state is _State.CHUNK
                    self._state = _State.CHUNK_END if chunk else _State.HEAD
                return taken

    def _until(self, data: bytes, start: int, end: bytes, then: Callable[[bytes], None]) -> int:
        """Collect bytes until `end`, which may have begun in earlier bytes."""
        before = len(self._buffer)
        self._buffer += data[start : start + _HEAD_BYTES]
        found = self._buffer.find(end, max(0, before - len(end) + 1))
        if found < 0:
            assert len(self._buffer) <= 2 * _HEAD_BYTES, "a response's head without an end"
            return len(self._buffer) - before
        complete = bytes(self._buffer[:found])
        self._buffer.clear()
        then(complete)
        return found + len(end) - before

    def _end_head(self, head: bytes) -> None:
        status, _, fields = head.decode("latin-1").partition("\r\n")
        named = {
            name.strip().lower(): value.strip().lower()
            for name, _, value in (line.partition(":") for line in fields.split("\r\n"))
        }
        code = int(status.split(" ")[1])
        self.heads += 1
        self.statuses[code] += 1
        self._line.clear()
        self._has_lines, self._event = False, ""
        if named.get("transfer-encoding") == "chunked":
            self._state = _State.CHUNK_SIZE
        elif code in (204, 304) or named.get("content-length") == "0":
            self._state = _State.HEAD
        elif "content-length" in named:
            self._state, self._remaining = _State.LENGTH, int(named["content-length"])
        else:
            self._state = _State.UNTIL_END

    def _end_chunk_size(self, line: bytes) -> None:
        self._remaining = int(line.partition(b";")[0], 16)
        self._state = _State.CHUNK if self._remaining else _State.TRAILER

    def _end_chunk(self, _: bytes) -> None:
        self._state = _State.CHUNK_SIZE

    def _end_trailer(self, line: bytes) -> None:
        if not line:
            self._state = _State.HEAD

    def _body(self, data: bytes, start: int, end: int) -> int:
        """Take body bytes up to `end`, a line's end, or the cut; return how many."""
        if self.cut is not None and self.cut.body_bytes:
            end = min(end, start + max(1, self._due[2] - self._body_bytes))
        newline = data.find(b"\n", start, end)
        stop = end if newline < 0 else newline + 1
        self._line += data[start : min(stop, start + _LINE_BYTES - len(self._line))]
        self._body_bytes += stop - start
        if newline >= 0:
            self._end_line(bytes(self._line).rstrip(b"\r\n"))
            self._line.clear()
        return stop - start

    def _end_line(self, line: bytes) -> None:
        if line.startswith(b"event:"):
            self._event = line[6:].strip().decode("utf-8", "replace")
        if line:
            self._has_lines = True
        elif self._has_lines:
            self._blocks += 1
            self.events[self._event] += 1
            self._has_lines, self._event = False, ""
