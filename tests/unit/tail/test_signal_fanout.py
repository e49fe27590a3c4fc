"""Signals: passed on once, ephemeral events to tails, everything to subscribers."""

from __future__ import annotations

import asyncio

from streams.model.ids import EntryId
from streams.tail.signal_fanout import SignalFanout
from streams.tail.tail import Tail

_TYPING = b"event: typing.start\ndata: {}\n\n"


def _with_tail() -> tuple[SignalFanout, Tail, list[bytes]]:
    """Return a fanout, a tail that was added to it, and the frames that the tail passed on."""
    fanout, tail = SignalFanout(), Tail("p", last_seq=0, position=EntryId(0, 0))
    frames: list[bytes] = []
    tail.listen(lambda: None, frames.append)
    fanout.add(tail)
    return fanout, tail, frames


async def _turn() -> None:
    """Let the loop run what was scheduled."""
    await asyncio.sleep(0)


async def test_an_ephemeral_event_reaches_the_tail_of_its_project() -> None:
    """§1: it is framed without an id, and not kept."""
    fanout, tail, frames = _with_tail()
    fanout.received("p", "typing.start", b"{}")
    fanout.received("other", "typing.start", b"{}")
    await _turn()
    assert (frames, tail.end_index) == ([_TYPING], 0)


async def test_a_notice_reaches_subscribers_and_no_tail() -> None:
    """Notices are for this service's own parts: clients never get them."""
    fanout, _, frames = _with_tail()
    heard: list[tuple[str, str, bytes]] = []
    fanout.on_notice(lambda *signal: heard.append(signal))
    fanout.received("p", "access.revoked", b"u")
    await _turn()
    assert (heard, frames) == ([("p", "access.revoked", b"u")], [])


async def test_many_events_at_once_are_one_frame() -> None:
    """A crowd that arrives together is one write per connection."""
    fanout, _, frames = _with_tail()
    for _ in range(20):
        fanout.received("p", "typing.start", b"{}")
    await _turn()
    assert frames == [_TYPING * 20]


async def test_a_removed_tail_gets_nothing() -> None:
    """Not even what was received before it was removed."""
    fanout, tail, frames = _with_tail()
    fanout.received("p", "typing.start", b"{}")
    fanout.remove(tail)
    await _turn()
    assert frames == []
