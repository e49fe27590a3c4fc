"""What an operator sees of a project's window: ids and times of its entries, size, expiry. Pure.

How it is read is in `window.py`; the script that reads it is `lua/survey.lua`.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from streams.model.ids import EntryId


class WindowSurvey(msgspec.Struct, frozen=True):
    """The window's newest entries, oldest first, each with when it was published.

    That is unix time in microseconds, 0 where no writer of the service wrote the entry. `total`
    counts all entries of the stream; `size_bytes` is None when the server does not say,
    `expires_in_s` when nothing expires or there is no stream.
    """

    entries: tuple[tuple[EntryId, int], ...]
    total: int
    size_bytes: int | None
    expires_in_s: float | None


def read_survey(reply: Sequence[int | bytes]) -> WindowSurvey:
    """Read the reply of the script."""
    total, size_bytes, expires_ms = (int(number) for number in reply[:3])
    pairs = reply[3:]
    entries = [
        (EntryId.parse(_bytes(entry_id)), _unix_us(_bytes(at)))
        for entry_id, at in zip(pairs[::2], pairs[1::2], strict=True)
    ]
    entries.reverse()
    return WindowSurvey(
        entries=tuple(entries),
        total=total,
        size_bytes=None if size_bytes < 0 else size_bytes,
        expires_in_s=None if expires_ms < 0 else expires_ms / 1000,
    )


def _bytes(value: int | bytes) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


def _unix_us(text: bytes) -> int:
    return int(text) if text.isdigit() and len(text) <= 18 else 0
