"""What a client shows of an unfinished answer: pieces and states applied as docs/protocol.md says.

Pure, and written from the protocol alone: nothing of the service is used here. The message that
ends an answer replaces all of it, which is up to the caller.
"""

from __future__ import annotations

from tests.support.answer_history import Piece, ShownPart, State


class AnswerFold:
    """The text and the parts of one answer up to piece `index`; -1 before the first.

    A piece that arrives before the one it follows waits until that one, or a state, has come.
    """

    def __init__(self) -> None:
        self.text = ""
        self.parts: list[ShownPart] = []
        self.index = -1
        # Whether the last piece was a part, which the next one may continue.
        self._in_part = False
        self._waiting: dict[int, Piece] = {}

    def piece(self, piece: Piece) -> None:
        """Apply a piece; a repeat changes nothing."""
        if piece.index > self.index:
            self._waiting.setdefault(piece.index, piece)
            self._apply_waiting()

    def state(self, state: State) -> None:
        """Replace everything by a state that is not behind what is shown."""
        if state.index < self.index:
            return
        self.text = state.text
        self.parts = list(state.parts)
        self.index = state.index
        # A part at the text's end was the last piece, or the next text begins after it.
        self._in_part = bool(self.parts) and self.parts[-1].offset == len(self.text)
        self._waiting = {i: piece for i, piece in self._waiting.items() if i > self.index}
        self._apply_waiting()

    def _apply_waiting(self) -> None:
        while (piece := self._waiting.pop(self.index + 1, None)) is not None:
            self.index += 1
            if piece.kind == "text":
                self.text += piece.delta
                self._in_part = False
                continue
            new = ShownPart(piece.kind, len(self.text), piece.data)
            whole = joined(self.parts[-1], new) if self._in_part else None
            if whole is None:
                self.parts.append(new)
            else:
                self.parts[-1] = whole
            self._in_part = True


def joined(first: ShownPart, second: ShownPart) -> ShownPart | None:
    """Join two adjacent parts whose data are objects that differ in `text` alone, else None."""
    one, other = first.data, second.data
    if first.kind != second.kind or not isinstance(one, dict) or not isinstance(other, dict):
        return None
    begin, more = one.get("text"), other.get("text")
    if not isinstance(begin, str) or not isinstance(more, str):
        return None
    if one | {"text": ""} != other | {"text": ""}:
        return None
    return ShownPart(first.kind, first.offset, one | {"text": begin + more})


def begins_with(whole: tuple[ShownPart, ...], shown: list[ShownPart]) -> bool:
    """Tell whether the parts `shown` are a beginning of `whole`; the last one may have grown."""
    if len(shown) > len(whole):
        return False
    if not shown:
        return True
    last, now = shown[-1], whole[len(shown) - 1]
    return list(whole[: len(shown) - 1]) == shown[:-1] and (last == now or _grew(last, now))


def _grew(before: ShownPart, now: ShownPart) -> bool:
    one, other = before.data, now.data
    if (before.kind, before.offset) != (now.kind, now.offset):
        return False
    if not isinstance(one, dict) or not isinstance(other, dict):
        return False
    begin, text = one.get("text"), other.get("text")
    return (
        isinstance(begin, str)
        and isinstance(text, str)
        and text.startswith(begin)
        and one | {"text": ""} == other | {"text": ""}
    )
