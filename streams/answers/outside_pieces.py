"""How large an answer of an assistant outside grows by what a request brings. Pure.

The row keeps the sizes, so that a request need not read all pieces. They are counted as
`AnswerText` counts them: what is taken here, an answer shows whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from streams.answers.pieces import PART_OVERHEAD_BYTES, Piece, joined
from streams.model.errors import InvalidInput, PayloadTooLarge
from streams.model.events import MAX_PARTS_BYTES

MAX_PIECES = 20_000
"""Stored of one answer: reading them all must stay cheap."""
MAX_INDEX = 10_000_000


class Sizes(msgspec.Struct, frozen=True):
    """The bytes of an answer's text, and of its parts as JSON."""

    text_bytes: int
    parts_bytes: int


def grown(
    before: Sizes, last: Piece | None, pieces: Sequence[Piece], first: int, *, max_text_bytes: int
) -> Sizes:
    """Return the sizes of an answer that ends with `last` after `pieces` from `first` on.

    Raises:
        PayloadTooLarge: the text or the parts are above their bounds; it names the field.
    """
    text_bytes = before.text_bytes
    for number, piece in enumerate(pieces[first:], first):
        text_bytes += len(piece.delta.encode())
        if text_bytes > max_text_bytes:
            raise PayloadTooLarge(f"parts[{number}].delta", max_text_bytes)
    known = [] if last is None else [last]
    new = [*known, *(each for each in pieces[first:] if each.kind != "text" or each.delta)]
    parts_bytes = before.parts_bytes + _parts_bytes(new) - _parts_bytes(known)
    if parts_bytes > MAX_PARTS_BYTES:
        raise PayloadTooLarge("parts", MAX_PARTS_BYTES)
    return Sizes(text_bytes, parts_bytes)


def check_counts(next_index: int, stored: int) -> None:
    """Raise `InvalidInput` if an answer of so many pieces would be too costly to read."""
    if next_index > MAX_INDEX or stored > MAX_PIECES:
        raise InvalidInput("parts", f"bring the answer above {MAX_PIECES} pieces")


def _parts_bytes(pieces: Iterable[Piece]) -> int:
    return sum(
        len(each.data) + PART_OVERHEAD_BYTES for each in joined(pieces) if each.kind != "text"
    )
