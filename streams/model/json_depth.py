"""How deep JSON may be nested that is kept and read again. Pure.

Decoders use the stack: JSON that one caller could just decode fails in another, whose stack is
deeper.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

import msgspec

from streams.model.errors import InvalidInput

MAX_DEPTH = 64


def check_depth(encoded: bytes, field: str) -> None:
    """Raise `InvalidInput` if JSON is nested deeper than `MAX_DEPTH`."""
    # Most has fewer brackets than that, and needs no decoding.
    if encoded.count(b"[") + encoded.count(b"{") <= MAX_DEPTH:
        return
    try:
        level = _nested([msgspec.json.decode(encoded)])
    except RecursionError:
        raise _too_deep(field) from None
    for _ in range(MAX_DEPTH):
        inner = (each.values() if isinstance(each, dict) else each for each in level)
        level = _nested(chain.from_iterable(inner))
    if level:
        raise _too_deep(field)


def _nested(values: Iterable[object]) -> list[dict[str, object] | list[object]]:
    return [each for each in values if isinstance(each, dict | list)]


def _too_deep(field: str) -> InvalidInput:
    return InvalidInput(field, f"is nested deeper than {MAX_DEPTH} levels")
