"""The ring of legs: bounded, in order, and only what is settled is shown."""

from __future__ import annotations

import msgspec

from service.console.leg_ring import KEPT, LegRing
from streams.model import sse
from streams.model.ids import EntryId
from tests.support.entries import message_entry, transient_entry

_COMMITTED_US = 1_767_323_045_000_006  # the timestamp of `message_entry`


class _Clock:
    def __init__(self) -> None:
        self.us = _COMMITTED_US

    def __call__(self) -> int:
        return self.us


def _frames(first: int, last: int) -> list[bytes]:
    return [sse.message_frame(seq, message_entry(seq).data) for seq in range(first, last + 1)]


def test_a_message_has_the_time_of_each_leg_since_its_commit() -> None:
    """In milliseconds; the first write began when the batch did, the last ended with it."""
    clock = _Clock()
    ring = LegRing(clock)
    clock.us += 3000
    ring.arrived(0, _frames(1, 1), has_live=True)
    clock.us += 2000
    ring.written(0, 1, 3, 0.0005)
    ring.published({EntryId(1, 0): _COMMITTED_US + 1000})
    (leg,) = ring.settled(0)
    assert (leg.n, leg.id, leg.event, leg.user_id) == (1, "1-0", "message.new", "u")
    assert leg.committed_at == "2026-01-02T03:04:05.000006Z"
    assert (leg.published_ms, leg.arrived_ms) == (1, 3)
    assert (leg.first_write_ms, leg.last_write_ms, leg.connections) == (4.5, 5, 3)


def test_no_text_of_a_message_is_kept() -> None:
    """The console shows ways and times: what was said stays with the members."""
    ring = LegRing(_Clock())
    ring.arrived(0, _frames(1, 1), has_live=False)
    (leg,) = ring.settled(0)
    assert b"text 1" in _frames(1, 1)[0]
    assert b"text 1" not in msgspec.json.encode(leg)


def test_an_event_is_shown_once_it_is_written() -> None:
    """Until then the answer ends before it, so that no event is shown without its writes."""
    clock = _Clock()
    ring = LegRing(clock)
    ring.arrived(0, _frames(1, 3), has_live=True)
    assert ring.settled(0) == []
    ring.written(0, 2, 1, 0)
    assert [leg.n for leg in ring.settled(0)] == [1, 2]
    assert [leg.n for leg in ring.settled(1)] == [2]
    clock.us += 1_000_001
    (late,) = ring.settled(2)
    assert (late.n, late.connections, late.first_write_ms) == (3, None, None)


def test_what_nobody_reads_is_shown_at_once() -> None:
    """Without live connections nothing is written."""
    ring = LegRing(_Clock())
    ring.arrived(0, _frames(1, 1), has_live=False)
    (leg,) = ring.settled(0)
    assert (leg.connections, leg.first_write_ms) == (0, None)


def test_the_ring_is_bounded_and_goes_on_counting() -> None:
    """A burst above the bound leaves the newest, and a reader sees by `n` what it missed."""
    ring = LegRing(_Clock())
    ring.arrived(0, _frames(1, KEPT + 10), has_live=False)
    ring.arrived(KEPT + 10, _frames(KEPT + 11, KEPT + 11), has_live=False)
    shown = ring.settled(0)
    assert len(shown) == KEPT
    assert (shown[0].n, shown[-1].n, shown[-1].id) == (12, KEPT + 11, f"{KEPT + 11}-0")


def test_transient_entries_have_legs_and_foreign_data_breaks_nothing() -> None:
    """An entry without readable data has a name and a size."""
    ring = LegRing(_Clock())
    entry = transient_entry(4, 2)
    frames = [sse.event_frame(entry.event, entry.data), b"event: x\ndata: [1]\n\n"]
    ring.arrived(0, frames, has_live=False)
    status, odd = ring.settled(0)
    assert (status.id, status.event, status.committed_at) == ("4-2", "build.status", None)
    assert (odd.id, odd.event, odd.bytes, odd.arrived_ms) == ("", "x", 20, None)


def test_only_settled_events_are_asked_for_in_redis() -> None:
    """Once their publishing is known there is nothing to ask."""
    ring = LegRing(_Clock())
    ring.arrived(0, _frames(1, 2), has_live=True)
    assert ring.first_unpublished(0) is None
    ring.written(0, 2, 1, 0)
    assert ring.first_unpublished(0) == EntryId(1, 0)
    assert ring.first_unpublished(1) == EntryId(2, 0)
    ring.published({EntryId(1, 0): _COMMITTED_US, EntryId(2, 0): 0})
    assert ring.first_unpublished(0) == EntryId(2, 0)
