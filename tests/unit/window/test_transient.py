"""Appending transient entries: the bound on what one may hold, and on an answer's pieces."""

from __future__ import annotations

from typing import cast

import pytest

from streams.log.log import Log
from streams.model.errors import PayloadTooLarge
from streams.model.ids import EntryId
from streams.window.transient import MAX_DATA_BYTES, TransientWriter
from streams.window.window import Window


class _Window:
    """Takes what is appended, and keeps it."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []

    async def append_transient(
        self, project_id: str, event: str, data: bytes, *, head: int | None, newest_known: EntryId
    ) -> EntryId:
        self.taken.append(data)
        return EntryId(0, len(self.taken))


async def test_an_entry_has_at_most_64_kib() -> None:
    """Nothing larger gets to Redis: a window is bounded by how large its entries can be."""
    window = _Window()
    writer = TransientWriter(cast("Window", window), cast("Log", None))
    largest = b"x" * MAX_DATA_BYTES
    assert len(largest) == 64 * 1024
    assert await writer.append("p", "message.delta", largest) == EntryId(0, 1)
    with pytest.raises(PayloadTooLarge):
        await writer.append("p", "message.delta", largest + b"x")
    assert window.taken == [largest]
