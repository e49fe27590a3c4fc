"""The pieces of an answer: their kinds, which of them join, and what a run of them says. Pure.

docs/protocol.md §5. How pieces are gathered for storing is in `piece_queue.py`, where they are
stored in `piece_rows.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

import msgspec

from streams.model.errors import InvalidInput, PayloadTooLarge
from streams.model.events import MAX_PARTS_BYTES, MAX_TEXT_BYTES
from streams.model.json_depth import check_depth

PieceKind = Literal["text", "reasoning", "tool", "data"]
PART_KINDS = frozenset({"reasoning", "tool", "data"})

MAX_PIECE_BYTES = 32 * 1024
"""Of one part's data as JSON: with its envelope it fits into an entry of a stream."""

PART_OVERHEAD_BYTES = 64
"""The JSON of a part in a list of parts is at most so much longer than its data."""

MAX_DELTA_CHARACTERS = 8000
"""Of one piece of text in a stream: JSON escapes make it at most six times as long."""

# The escape of U+0000, which Postgres cannot read out of JSON; after a second backslash it is text.
_NUL = re.compile(rb"(?<!\\)((?:\\\\)*)\\u0000")
_encode = msgspec.json.Encoder(order="sorted").encode
_decode = msgspec.json.decode


class Piece(msgspec.Struct, frozen=True):
    """A piece of an answer: `delta` of kind `text`, else `data`, a JSON value."""

    kind: PieceKind
    delta: str = ""
    data: bytes = b""

    @property
    def body(self) -> str:
        """The piece's text, or its data as JSON."""
        return self.delta if self.kind == "text" else self.data.decode()


def text_piece(delta: str) -> Piece:
    """Return a piece of text; what cannot be stored (U+0000, lone surrogates) is replaced."""
    return Piece("text", delta=delta.replace("\x00", "").encode("utf-8", "replace").decode())


def part_piece(kind: PieceKind, data: object) -> Piece:
    """Return a piece of another kind.

    Raises:
        InvalidInput: the kind is not one of a part, the data cannot be written as JSON, or is
            nested too deep.
        PayloadTooLarge: the data is larger than `MAX_PIECE_BYTES`.
    """
    if kind not in PART_KINDS:
        raise InvalidInput("kind", "must be reasoning, tool or data")
    try:
        encoded = _encode(data)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput("data", "cannot be written as JSON") from error
    if len(encoded) > MAX_PIECE_BYTES:
        raise PayloadTooLarge("data", MAX_PIECE_BYTES)
    check_depth(encoded, "data")
    return Piece(kind, data=_NUL.sub(rb"\1\\ufffd", encoded))


def piece_of(kind: str, body: str) -> Piece:
    """Return a stored piece: the reverse of `Piece.body`."""
    if kind == "text":
        return Piece("text", delta=body)
    return msgspec.convert({"kind": kind, "data": body.encode()}, Piece)


class Part(msgspec.Struct, frozen=True):
    """A part as it is shown. `offset`: code points of the answer's text before it."""

    kind: PieceKind
    offset: int
    data: msgspec.Raw


class _Run:
    """Adjacent pieces that are one: text, a part that can grow, or one that cannot."""

    __slots__ = ("_characters", "_rest", "kind", "size_bytes", "texts")

    def __init__(self, piece: Piece) -> None:
        self.kind = piece.kind
        self.size_bytes = len(piece.body.encode())
        self.texts = [piece.delta]
        self._characters = len(piece.delta)
        self._rest: bytes | dict[str, object] = b""
        if piece.kind != "text":
            text, self._rest = _opened(piece.data)
            self.texts = [] if text is None else [text]

    def has_room(self, piece: Piece, most_bytes: int) -> bool:
        """Whether the run with the piece would still fit into an entry of a stream."""
        if self.kind == "text":
            return self._characters + len(piece.delta) <= MAX_DELTA_CHARACTERS
        return self.size_bytes + len(piece.data) <= most_bytes

    def growth_of(self, piece: Piece) -> int | None:
        """Return by how many bytes the run grows with a piece; None if they do not join."""
        if piece.kind != self.kind:
            return None
        if piece.kind == "text":
            return len(piece.delta.encode())
        text, rest = _opened(piece.data)
        if text is None or not self.texts or _encode(rest) != _encode(self._rest):
            return None
        return len(msgspec.json.encode(text)) - 2

    def take(self, piece: Piece) -> bool:
        """Join a piece to the run if it belongs to it."""
        growth = self.growth_of(piece)
        if growth is None:
            return False
        text = piece.delta if piece.kind == "text" else _opened(piece.data)[0]
        self.texts.append(text or "")
        self._characters += len(piece.delta)
        self.size_bytes += growth
        return True

    def piece(self) -> Piece:
        """Return the run as one piece."""
        if self.kind == "text":
            return Piece("text", delta="".join(self.texts))
        if isinstance(self._rest, bytes):
            return Piece(self.kind, data=self._rest)
        data = {**self._rest, "text": "".join(self.texts)}
        return Piece(self.kind, data=msgspec.json.encode(data))


def _opened(data: bytes) -> tuple[str | None, bytes | dict[str, object]]:
    """Return the `text` of a part that can grow and the rest of its data; else None and all."""
    value = _decode(data)
    if isinstance(value, dict) and isinstance(value.get("text"), str):
        return value.pop("text"), value
    return None, data


def joined(pieces: Iterable[Piece]) -> list[Piece]:
    """Join adjacent pieces of one kind whose data differ in a `text` alone, and adjacent text."""
    return [run.piece() for run in _runs(pieces, None)]


def entries_of(pieces: Iterable[Piece]) -> list[Piece]:
    """Return pieces as a stream has them: as few as possible, each small enough for an entry."""
    small: list[Piece] = []
    for piece in pieces:
        if len(piece.delta) <= MAX_DELTA_CHARACTERS:
            small.append(piece)
        else:
            small += [
                Piece("text", delta=piece.delta[start : start + MAX_DELTA_CHARACTERS])
                for start in range(0, len(piece.delta), MAX_DELTA_CHARACTERS)
            ]
    return [run.piece() for run in _runs(small, MAX_PIECE_BYTES)]


def _runs(pieces: Iterable[Piece], most_bytes: int | None) -> list[_Run]:
    runs: list[_Run] = []
    for piece in pieces:
        fits = bool(runs) and (most_bytes is None or runs[-1].has_room(piece, most_bytes))
        if not (fits and runs[-1].take(piece)):
            runs.append(_Run(piece))
    return runs


class AnswerText:
    """What an answer says so far: its text and parts, within bounds.

    A text that does not fit is cut (`truncated`), a part that does not fit is `left_out`.
    """

    def __init__(
        self, pieces: Iterable[Piece] = (), *, max_text_bytes: int = MAX_TEXT_BYTES
    ) -> None:
        self.truncated = False
        self.left_out = False
        self.text_bytes = 0
        self._max_text_bytes = max_text_bytes
        self._texts: list[str] = []
        self._characters = 0
        self._runs: list[tuple[int, _Run]] = []
        self.parts_bytes = 0
        # Whether the last piece was a part, so that the next one may join it.
        self._is_in_part = False
        for piece in pieces:
            self.take(piece)

    @property
    def text(self) -> str:
        """The text so far."""
        if len(self._texts) > 1:
            self._texts = ["".join(self._texts)]
        return self._texts[0] if self._texts else ""

    @property
    def parts(self) -> list[Part]:
        """The parts so far, adjacent ones joined."""
        return [Part(run.kind, offset, msgspec.Raw(run.piece().data)) for offset, run in self._runs]

    @property
    def is_empty(self) -> bool:
        """Whether there is neither text nor a part."""
        return not self._texts and not self._runs

    def take(self, piece: Piece) -> Piece | None:
        """Add a piece; return what was taken of it, None when nothing was."""
        if piece.kind == "text":
            return self._take_text(piece)
        return piece if self._take_part(piece) else None

    def _take_text(self, piece: Piece) -> Piece | None:
        delta = piece.delta
        encoded = delta.encode()
        room = self._max_text_bytes - self.text_bytes
        if len(encoded) > room:
            delta = encoded[:room].decode("utf-8", "ignore")
            encoded = delta.encode()
            self.truncated = True
        if not delta:
            return None
        self.text_bytes += len(encoded)
        self._characters += len(delta)
        self._texts.append(delta)
        self._is_in_part = False
        return piece if delta is piece.delta else Piece("text", delta=delta)

    def _take_part(self, piece: Piece) -> bool:
        last = self._runs[-1][1] if self._is_in_part else None
        growth = None if last is None else last.growth_of(piece)
        new_bytes = len(piece.data) + PART_OVERHEAD_BYTES if growth is None else growth
        if self.parts_bytes + new_bytes > MAX_PARTS_BYTES:
            self.left_out = True
            return False
        self.parts_bytes += new_bytes
        if last is None or not last.take(piece):
            self._runs.append((self._characters, _Run(piece)))
        self._is_in_part = True
        return True
