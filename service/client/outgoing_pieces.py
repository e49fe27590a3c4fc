"""The pieces of an answer on the way to the service: their indexes, and what is kept. Pure.

What was in a request stays as it was there, since the service drops repeats by index; only what
was in none is still joined. When to send is decided in `answering.py`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from service.client.answer_so_far import joined
from service.client.client_answers import Piece
from service.client.client_events import encode

MOST_BYTES = 64 * 1024
"""How much may be unacknowledged before a writer waits, and how much is kept of the rest."""
MOST_PIECES = 200
_PIECE_CHARACTERS = 8000
"""JSON escapes make a text six times as long at worst: still no large entry of the stream."""
_JOINED_BYTES = 8000


class _Held(msgspec.Struct, frozen=True):
    piece: Piece
    size_bytes: int


class OutgoingPieces:
    """Pieces, `next_index` being that of the first one."""

    def __init__(self, next_index: int = 0) -> None:
        # `_fixed[0]` has the index `_oldest`; the service expects `next_index`.
        self._oldest = next_index
        self._fixed: list[_Held] = []
        self._waiting: list[_Held] = []
        self._unacknowledged_bytes = 0
        self.next_index = next_index

    @property
    def is_empty(self) -> bool:
        """Whether the service has taken everything."""
        return not self._waiting and self.next_index == self._oldest + len(self._fixed)

    @property
    def is_full(self) -> bool:
        """Whether a writer has to wait."""
        return self._unacknowledged_bytes >= MOST_BYTES

    def add_text(self, text: str) -> None:
        """Add text; more than a piece takes becomes several.

        Raises:
            BadRequest: it cannot be written as JSON, as half a surrogate pair cannot.
        """
        encode(text)
        for start in range(0, len(text), _PIECE_CHARACTERS):
            delta = text[start : start + _PIECE_CHARACTERS]
            self._add(_Held(Piece("text", delta), len(delta.encode())))

    def add_part(self, kind: str, data: Any) -> None:
        """Add another piece, as the data is now.

        Raises:
            BadRequest: the data cannot be written as JSON.
        """
        encoded = encode(data)
        self._add(_Held(Piece(kind, data=msgspec.json.decode(encoded)), len(encoded)))

    def request(self) -> tuple[int, list[Piece]]:
        """Return the index and the pieces of the next request; the same until some are taken."""
        begin = self.next_index - self._oldest
        if begin == len(self._fixed):
            self._fixed += self._waiting[:MOST_PIECES]
            del self._waiting[:MOST_PIECES]
        pieces = self._fixed[begin : begin + MOST_PIECES]
        return self.next_index, [held.piece for held in pieces]

    def expect(self, index: int) -> bool:
        """Go on from the piece that the service expects; False when that one is not known here.

        Some of what the service has acknowledged is kept, for one that lost its last writes.
        """
        if not self._oldest <= index <= self._oldest + len(self._fixed):
            return False
        self.next_index = index
        acknowledged = index - self._oldest
        rest = self._fixed[acknowledged:] + self._waiting
        self._unacknowledged_bytes = sum(held.size_bytes for held in rest)
        size_bytes = sum(held.size_bytes for held in self._fixed[:acknowledged])
        dropped = 0
        while size_bytes > MOST_BYTES:
            size_bytes -= self._fixed[dropped].size_bytes
            dropped += 1
        del self._fixed[:dropped]
        self._oldest += dropped
        return True

    def _add(self, held: _Held) -> None:
        self._unacknowledged_bytes += held.size_bytes
        if self._waiting:
            last = self._waiting[-1]
            size_bytes = last.size_bytes + held.size_bytes
            one = joined(last.piece, held.piece) if size_bytes <= _JOINED_BYTES else None
            if one is not None:
                self._waiting[-1] = _Held(one, size_bytes)
                return
        self._waiting.append(held)
