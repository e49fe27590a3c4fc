"""What a tail holds back while it is filled from the log: bounded in entries and in bytes."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from streams.log.log import Log
from streams.model.ids import EntryId
from streams.runtime.health import Health
from streams.runtime.observer import Observer
from streams.tail import registry as tails_module
from streams.tail.registry import Tails
from streams.tail.tail import Tail
from streams.window.publisher import Publisher
from streams.window.redis_client import RedisClient
from streams.window.window import Entry, Window


class _Hangs:
    """A log that does not answer: what comes meanwhile is held back."""

    async def slice(self, project_id: str, **how: Any) -> None:
        await asyncio.Event().wait()


async def _held_back(sizes: list[int]) -> list[Entry]:
    """What is pending after entries of these sizes came behind a gap, one after the other."""
    nothing = cast("Any", None)
    tails = Tails(
        cast("RedisClient", nothing), cast("Window", nothing), cast("Log", _Hangs()),
        cast("Publisher", nothing), Health(Observer()), Observer(),
        process_id="test", memory_bytes=1 << 20, linger_s=1,
    )  # fmt: skip
    tail = Tail("p", last_seq=1, position=EntryId(1, 0))
    try:
        for seq, size in enumerate(sizes, start=3):
            tails._on_gap(tail, [Entry(EntryId(seq, 0), "message.new", b"x" * size, 0)])
        return list(tails._pending["p"])
    finally:
        await tails.close()


async def test_what_waits_for_the_log_is_bounded_in_bytes() -> None:
    """The newest stay: what goes comes from the log anyway."""
    held = await _held_back([1024 * 1024] * 20)
    assert sum(len(entry.data) for entry in held) == tails_module._MAX_PENDING_BYTES
    assert [entry.id.seq for entry in held] == list(range(15, 23))


@pytest.mark.parametrize("surplus", [0, 1, 50])
async def test_what_waits_for_the_log_is_bounded_in_entries(surplus: int) -> None:
    """Small ones too: an object costs more than its bytes."""
    held = await _held_back([1] * (tails_module._MAX_PENDING + surplus))
    assert len(held) == tails_module._MAX_PENDING
    assert held[0].id.seq == 3 + surplus
