"""What an operator sees of a window: read by a script that leaves the entries' data in Redis."""

from __future__ import annotations

import pytest

from streams.model.errors import WindowUnavailable
from streams.model.ids import EntryId
from streams.window import keys
from streams.window.redis_client import RedisClient
from streams.window.window import IDLE_EXPIRY_MS, Run, Window
from tests.support.entries import message_entry


async def _fill(window: Window, project: str, count: int) -> None:
    run = Run(project, 1, [message_entry(seq).data for seq in range(1, count + 1)])
    assert (await window.append(run)).status == "ok"


async def test_a_survey_has_ids_times_size_and_expiry(window: Window, project: str) -> None:
    """Messages and transient entries in their order; the data is not read."""
    await _fill(window, project, 3)
    await window.append_transient(
        project, "build.status", b'{"x":1}', head=3, newest_known=EntryId(0, 0)
    )
    found = await window.survey(project, newest=10)
    assert [entry_id for entry_id, _ in found.entries] == [(1, 0), (2, 0), (3, 0), (3, 1)]
    assert all(at_us > 1_700_000_000_000_000 for _, at_us in found.entries)
    assert found.total == 4
    assert found.size_bytes is not None
    assert found.size_bytes > 100
    assert found.expires_in_s is not None
    assert IDLE_EXPIRY_MS / 1000 - 60 < found.expires_in_s <= IDLE_EXPIRY_MS / 1000


async def test_a_survey_is_bounded_and_can_begin_after_an_entry(
    window: Window, project: str
) -> None:
    """The newest entries count; `total` says how many there are."""
    await _fill(window, project, 10)
    newest = await window.survey(project, newest=2)
    assert [entry_id.seq for entry_id, _ in newest.entries] == [9, 10]
    assert newest.total == 10
    later = await window.survey(project, newest=10, after=EntryId(7, 0))
    assert [entry_id.seq for entry_id, _ in later.entries] == [8, 9, 10]


async def test_a_window_that_is_not_there_is_empty(window: Window, project: str) -> None:
    """No stream is no failure."""
    found = await window.survey(project, newest=10)
    assert (found.entries, found.total, found.expires_in_s) == ((), 0, None)


async def test_entries_of_others_have_no_time(
    window: Window, redis_client: RedisClient, project: str
) -> None:
    """Any program can add to a stream."""
    await redis_client.call("XADD", keys.stream(project), "5-0", "a", "b")
    await redis_client.call("PEXPIRE", keys.stream(project), 60_000)
    assert (await window.survey(project, newest=10)).entries == ((EntryId(5, 0), 0),)


async def test_a_key_of_another_type_is_reported_as_unavailable(
    window: Window, redis_client: RedisClient, project: str
) -> None:
    """The driver's errors stay in its room."""
    await redis_client.call("SET", keys.stream(project), "x", "PX", 60_000)
    with pytest.raises(WindowUnavailable):
        await window.survey(project, newest=10)
