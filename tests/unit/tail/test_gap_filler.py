"""Entries held back behind a gap while the tail is filled: bounded in number and in bytes."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from streams.log.log import Log
from streams.model.ids import EntryId
from streams.runtime.observer import Observer
from streams.runtime.owned_tasks import end
from streams.tail import gap_filler
from streams.tail.gap_filler import GapFiller
from streams.tail.tail import Tail
from streams.window.publisher import Publisher
from streams.window.window import Entry


class _HangingLog:
    """A log that does not answer: entries that arrive meanwhile are held back."""

    async def slice(self, project_id: str, **how: Any) -> None:
        await asyncio.Event().wait()


async def _held_back(sizes: list[int]) -> list[Entry]:
    """Return what is held back after entries of these sizes came behind a gap, one by one."""
    filler = GapFiller(cast("Log", _HangingLog()), cast("Publisher", None), Observer())
    tail = Tail("p", last_seq=1, position=EntryId(1, 0))
    try:
        for seq, size in enumerate(sizes, start=3):
            filler.gap_found(tail, [Entry(EntryId(seq, 0), "message.new", b"x" * size, 0)])
        return list(filler._held_back["p"])
    finally:
        await end(filler.fetches())


async def test_entries_behind_a_gap_are_bounded_in_bytes() -> None:
    """The newest stay: the messages of those that are dropped come from the log."""
    held = await _held_back([1024 * 1024] * 20)
    assert sum(len(entry.data) for entry in held) == gap_filler._MAX_HELD_BACK_BYTES
    assert [entry.id.seq for entry in held] == list(range(15, 23))


@pytest.mark.parametrize("surplus", [0, 1, 50])
async def test_entries_behind_a_gap_are_bounded_in_number(surplus: int) -> None:
    """Small entries too: an object costs more than its bytes."""
    held = await _held_back([1] * (gap_filler._MAX_HELD_BACK + surplus))
    assert len(held) == gap_filler._MAX_HELD_BACK
    assert held[0].id.seq == 3 + surplus
