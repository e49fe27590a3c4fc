"""What goes to clients is made once for all who get the same."""

from __future__ import annotations

from service.streaming.outgoing import Outgoing, Replays
from streams.model import sse
from streams.model.ids import EntryId
from streams.tail.tail import Tail
from streams.window.window import Entry


def _tail(count: int) -> Tail:
    tail = Tail("p", last_seq=0, position=EntryId(0, 0))
    for seq in range(1, count + 1):
        tail.offer(Entry(EntryId(seq, 0), "message.new", b'{"seq":%d}' % seq, 0))
        tail.offer(Entry(EntryId(seq, 1), "build.status", b"{}", 0))
    return tail


def test_frames_are_joined_framed_and_counted() -> None:
    """Counted by event."""
    frames = [sse.event_frame("stream.live", b"{}"), *_tail(3).frames(0)]
    outgoing = Outgoing(frames)
    assert outgoing.chunk.data == b"".join(frames)
    assert outgoing.counts == {b"stream.live": 1, b"message.new": 3, b"build.status": 3}


def test_a_replay_differs_from_live_in_the_messages_event() -> None:
    """§6: `message.replay`; other entries are the same."""
    tail = _tail(2)
    replay = Replays().of(tail.frames(0, 4))
    assert replay.chunk.data == b"".join(tail.frames(0)).replace(b"message.new", b"message.replay")
    assert replay.counts == {b"message.replay": 2, b"build.status": 2}


def test_a_crowd_is_sent_the_same_bytes() -> None:
    """Who comes back to the same place gets what was made for the first."""
    tail, replays = _tail(4), Replays()
    assert replays.of(tail.frames(2, 6)) is replays.of(tail.frames(2, 6))


def test_other_frames_are_another_replay() -> None:
    """Whether they begin, end or differ elsewhere."""
    tail, replays = _tail(4), Replays()
    lists = [tail.frames(2, 6), tail.frames(0, 6), tail.frames(2, 8), tail.frames(2, 6)[::-1]]
    for frames in lists:
        assert replays.of(frames).chunk.data == b"".join(map(sse.as_replay, frames))


def test_a_tail_that_began_again_is_replayed_as_it_is_now() -> None:
    """Entries put in below come to stand where others stood: after a restored log, say."""
    tail, replays = _tail(4), Replays()
    replays.of(tail.frames(4, 8))
    tail.restart(4, EntryId(4, 0))
    again = [Entry(EntryId(seq, 0), "message.new", b'{"again":%d}' % seq, 0) for seq in range(1, 5)]
    tail.extend_down(again, EntryId(0, 0))
    frames = tail.frames(4, 8)
    assert len(frames) == 4
    assert replays.of(frames).chunk.data == b"".join(map(sse.as_replay, frames))


def test_few_replays_are_kept() -> None:
    """Memory is bounded, whoever comes back from wherever."""
    tail, replays = _tail(40), Replays()
    first = replays.of(tail.frames(0, 80))
    for start in range(1, 60):
        replays.of(tail.frames(start, 80))
    assert len(replays._kept) <= 16
    assert replays.of(tail.frames(0, 80)) is not first
