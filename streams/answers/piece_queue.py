"""The pieces of one answer between its writer and the store: joined while they wait. Pure.

A piece gets its index when it is cut off, and keeps it until it is stored: after an unknown outcome
the same piece is stored again.
"""

from __future__ import annotations

from streams.answers.pieces import Piece, entries_of


class PieceQueue:
    """First in, first out. What waits is as large as the answer at most (`AnswerText`)."""

    def __init__(self) -> None:
        self._waiting: list[Piece] = []
        self._cut: Piece | None = None
        self._index = 0

    def __bool__(self) -> bool:
        return self._cut is not None or bool(self._waiting)

    def put(self, piece: Piece) -> None:
        """Add a piece at the end."""
        self._waiting.append(piece)

    def first(self) -> tuple[int, Piece] | None:
        """Return the next piece to store, with its index; the same one until it is stored."""
        if self._cut is None and self._waiting:
            self._cut, *self._waiting = entries_of(self._waiting)
        return None if self._cut is None else (self._index, self._cut)

    def stored(self, index: int) -> None:
        """Note that the piece of this index was stored."""
        if index == self._index and self._cut is not None:
            self._cut = None
            self._index += 1
