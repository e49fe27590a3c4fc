"""One unfinished answer as the database had it, with the pieces that came since. Pure.

Which pieces came, and which answers are known, is in `followed_answers.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

from streams.answers.answer_events import ANSWER_STATE, Delta, state_data
from streams.answers.answer_values import AnswerState
from streams.answers.pieces import AnswerText, Part, Piece
from streams.model import sse


class KnownAnswer:
    """An answer as the database had it, with the pieces that came since."""

    __slots__ = ("_frame", "_state", "_text", "index")

    def __init__(self, state: AnswerState) -> None:
        self.index = state.index
        self._state = state
        # Made when the first piece comes: most reads are followed by none.
        self._text: AnswerText | None = None
        self._frame: bytes | None = None

    def take(self, delta: Delta) -> bool:
        """Add a piece, unless it is known; return False when there is a hole before it."""
        if delta.index > self.index + 1:
            return False
        if delta.index == self.index + 1:
            if self._text is None:
                self._text = _text_of(self._state.text, self._state.parts)
            self._text.take(delta.piece)
            self.index = delta.index
            self._frame = None
        return True

    @property
    def frame(self) -> bytes:
        """The frame of `answer.state`, encoded once for all that are shown it."""
        if self._frame is None:
            if self._text is not None:
                self._state = AnswerState(
                    answer=self._state.answer,
                    status="in_progress",
                    text=self._text.text,
                    parts=self._text.parts,
                    index=self.index,
                )
            self._frame = sse.event_frame(ANSWER_STATE, state_data(self._state))
        return self._frame


def _text_of(text: str, parts: Sequence[Part]) -> AnswerText:
    """Return a text with its parts in their places, to which pieces can be added."""
    pieces: list[Piece] = []
    start = 0
    for part in parts:
        if part.offset > start:
            pieces.append(_text(text[start : part.offset]))
            start = part.offset
        pieces.append(Piece(part.kind, data=bytes(part.data)))
    return AnswerText([*pieces, _text(text[start:])])


def _text(delta: str) -> Piece:
    return Piece("text", delta=delta)
