"""What an answer is so far, from its pieces and states; and which pieces are one. Pure.

docs/protocol.md §5 and §6. Every client that shows an answer while it is written does this; what
the answer became is its message.
"""

from __future__ import annotations

from typing import Any

import msgspec

from service.client.client_answers import AnswerState, Delta, Part, Piece

_encode = msgspec.json.Encoder(order="sorted").encode


def joined_data(first: Any, second: Any) -> Any:
    """Return the data of two adjacent pieces of one kind as one, or None when they stay two.

    They are one when both are objects that differ in `text` alone, a string in both.
    """
    if not isinstance(first, dict) or not isinstance(second, dict):
        return None
    texts = first.get("text"), second.get("text")
    if not isinstance(texts[0], str) or not isinstance(texts[1], str):
        return None
    # As JSON, since in Python `True == 1`.
    if _encode(first | {"text": ""}) != _encode(second | {"text": ""}):
        return None
    return first | {"text": texts[0] + texts[1]}


def joined(first: Piece, second: Piece) -> Piece | None:
    """Return two adjacent pieces as one, or None when they stay two."""
    if first.kind != second.kind:
        return None
    if first.kind == "text":
        return Piece("text", first.delta + second.delta)
    data = joined_data(first.data, second.data)
    return None if data is None else Piece(first.kind, data=data)


class AnswerSoFar:
    """One answer's text and parts up to its piece `index`, -1 for none.

    `parts` are the pieces that are no text, in order, adjacent ones joined.
    """

    def __init__(self, message_id: str) -> None:
        self.message_id = message_id
        self.index = -1
        self.text = ""
        self.parts: list[Part] = []

    def apply(self, event: Delta | AnswerState) -> bool:
        """Take an event; tell whether it changed anything.

        A piece that was seen before changes nothing. Neither does one with a hole before it: what
        is missing comes with the next state.
        """
        if event.message_id != self.message_id:
            return False
        if isinstance(event, AnswerState):
            return self._replace(event)
        if event.index != self.index + 1:
            return False
        self.index = event.index
        if event.piece.kind == "text":
            self.text += event.piece.delta
        else:
            self._add(event.piece)
        return True

    def _replace(self, state: AnswerState) -> bool:
        if state.index < self.index:
            return False
        parts = list(state.parts)
        changed = (state.index, state.text, parts) != (self.index, self.text, self.parts)
        self.index, self.text, self.parts = state.index, state.text, parts
        return changed

    def _add(self, piece: Piece) -> None:
        # Without text between them, pieces are adjacent.
        offset = len(self.text)
        if self.parts and (self.parts[-1].kind, self.parts[-1].offset) == (piece.kind, offset):
            data = joined_data(self.parts[-1].data, piece.data)
            if data is not None:
                self.parts[-1] = Part(piece.kind, offset, data)
                return
        self.parts.append(Part(piece.kind, offset, piece.data))
