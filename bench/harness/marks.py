"""The mark in every message's text: the time its post began, and its number.

The load generators run in different processes; a mark in the text lets the reader know both
without a table shared between them. CLOCK_MONOTONIC is the same for all processes of a machine.

Pure: no clock is read here.
"""

from __future__ import annotations

MARK_BYTES = 2 + 16 + 1 + 9 + 1

# Fixed widths: the time is at offset 2, the number at offset 19.
MARK_BEGIN = b"~T"

_FILLER = "The quick brown fox jumps over the lazy dog; "


def make_text(number: int, begun_ns: int, size: int) -> str:
    """Return a text of `size` ASCII characters that carries a mark.

    Raises `ValueError` when `size` has no room for the mark.
    """
    if size < MARK_BYTES:
        raise ValueError(f"a text of {size} bytes has no room for a mark of {MARK_BYTES}")
    return f"~T{begun_ns:016d}.{number:09d}~" + filler(size - MARK_BYTES)


def filler(size: int) -> str:
    """Return `size` characters of plain ASCII prose."""
    return (_FILLER * (size // len(_FILLER) + 1))[:size]
