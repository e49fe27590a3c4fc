"""Bytes of an event stream to blocks. Pure: no sockets, no JSON, no meaning of an event.

Written here although httpx-sse is well kept: its public face has no bound on a line or a block
(a server that never ends one would fill the memory), yields an id that a block only inherited, and
decodes every line apart, which a load tool with hundreds of streams cannot afford. The unit tests
compare both parsers on random streams.
"""

from __future__ import annotations

import re

import msgspec

from service.client.client_errors import TooLarge

MAX_BLOCK_BYTES = 1024 * 1024
"""A text of 64 KiB, escaped six-fold, and its metadata fit twice."""

_LINE_END = re.compile(rb"\r\n|\r|\n")
# Two ends of lines. Atomic, or CR LF would count as two.
_BLOCK_END = re.compile(rb"(?>\r\n|\r|\n)(?>\r\n|\r|\n)")
_BOM = b"\xef\xbb\xbf"
_DIGITS = re.compile(rb"[0-9]{1,15}\Z")


class Block(msgspec.Struct, frozen=True):
    """One block of a stream. `id` is None unless the block itself has one."""

    event: str
    data: bytes
    id: str | None = None
    retry_ms: int | None = None


class BlockParser:
    """Splits a stream into blocks, fed in pieces of any size.

    Comments, and blocks that only hold unknown fields, yield nothing. An incomplete block at the
    stream's end is dropped, as the standard demands.
    """

    def __init__(self, *, max_block_bytes: int = MAX_BLOCK_BYTES) -> None:
        self._max_block_bytes = max_block_bytes
        self._held = bytearray()
        self._searched = 0
        self._at_start = True

    def feed(self, data: bytes) -> list[Block]:
        """Return the blocks that these bytes complete.

        Raises:
            TooLarge: a block is above the bound; the parser is of no use afterwards.
        """
        held = self._held
        held += data
        if not self._ready():
            return []
        blocks: list[Block] = []
        start = 0
        # With LF alone, which is what services send, there is a way ten times as fast.
        only_lf = 0x0D not in held
        while True:
            end, after = _block_end(held, max(start, self._searched), only_lf)
            if end < 0:
                break
            self._check(end - start)
            block = _parse(bytes(held[start:end]))
            if block is not None:
                blocks.append(block)
            # A LF whose CR ended the piece stays as an empty line, which says nothing.
            start = self._searched = after
        del held[:start]
        # What is held has no end of a block, so at most the last two bytes belong to one.
        self._searched = max(len(held) - 3, 0)
        self._check(len(held))
        return blocks

    def _ready(self) -> bool:
        """Drop a byte order mark at the stream's start; false until it is decided."""
        if not self._at_start:
            return True
        if len(self._held) < len(_BOM) and _BOM.startswith(bytes(self._held)):
            return False
        if self._held.startswith(_BOM):
            del self._held[: len(_BOM)]
        self._at_start = False
        return True

    def _check(self, size_bytes: int) -> None:
        if size_bytes > self._max_block_bytes:
            raise TooLarge("a block of the stream", self._max_block_bytes)


def _block_end(held: bytearray, start: int, only_lf: bool) -> tuple[int, int]:
    """Return where a block ends and where the next begins; -1 when neither is there yet."""
    if only_lf:
        end = held.find(b"\n\n", start)
        return end, end + 2
    found = _BLOCK_END.search(held, start)
    return (-1, -1) if found is None else found.span()


def _parse(text: bytes) -> Block | None:
    event, data, own_id, retry_ms = "", None, None, None
    for line in text.split(b"\n") if b"\r" not in text else _LINE_END.split(text):
        name, _, value = line.partition(b":")
        if value.startswith(b" "):
            value = value[1:]
        if name == b"data":
            data = value if data is None else data + b"\n" + value
        elif name == b"event":
            event = value.decode("utf-8", "replace")
        elif name == b"id":
            if b"\0" not in value:
                own_id = value.decode("utf-8", "replace")
        elif name == b"retry" and _DIGITS.match(value):
            retry_ms = int(value)
    if data is None and own_id is None and retry_ms is None:
        return None
    return Block(event, data or b"", own_id, retry_ms)
