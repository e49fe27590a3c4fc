"""What goes to clients is made once for all who get the same."""

from __future__ import annotations

from service.outgoing import Outgoing, Replays
from streams import sse
from streams.ids import EntryId
from streams.replay import Piece
from streams.tail import Tail
from streams.window import Entry


def _tail(count: int) -> Tail:
    tail = Tail("p", last_seq=0, position=EntryId(0, 0))
    for seq in range(1, count + 1):
        tail.offer(Entry(EntryId(seq, 0), "message.new", b'{"seq":%d}' % seq, 0))
        tail.offer(Entry(EntryId(seq, 1), "build.status", b"{}", 0))
    return tail


def _piece(tail: Tail, start: int, end: int) -> Piece:
    return Piece(tail.frames(start, end), tail.seq_before(end), end, (end - start) // 2)


def test_frames_are_joined_framed_and_counted() -> None:
    """By event; a block without an event is no event."""
    frames = [sse.priming(2000, 7), *_tail(3).frames(0)]
    outgoing = Outgoing(frames)
    assert outgoing.chunk.data == b"".join(frames)
    assert outgoing.counts == {b"message.new": 3, b"build.status": 3}


def test_a_replay_differs_from_live_in_the_messages_event() -> None:
    """§6: `message.replay`; other entries are the same."""
    tail = _tail(2)
    replay = Replays().of(tail, _piece(tail, 0, 4))
    assert replay.chunk.data == b"".join(tail.frames(0)).replace(b"message.new", b"message.replay")
    assert replay.counts == {b"message.replay": 2, b"build.status": 2}


def test_a_crowd_is_sent_the_same_bytes() -> None:
    """Who comes back to the same place gets what was made for the first."""
    tail, replays = _tail(4), Replays()
    assert replays.of(tail, _piece(tail, 2, 6)) is replays.of(tail, _piece(tail, 2, 6))


def test_other_places_and_other_tails_are_other_replays() -> None:
    """A tail that was made anew may have other entries at the same places."""
    tail, again, replays = _tail(4), _tail(4), Replays()
    pieces = [(tail, 2, 6), (tail, 0, 6), (tail, 2, 8), (again, 2, 6)]
    made = [replays.of(of, _piece(of, start, end)) for of, start, end in pieces]
    assert len({id(each) for each in made}) == len(pieces)
    for (of, start, end), each in zip(pieces, made, strict=True):
        expected = b"".join(sse.as_replay(frame) for frame in of.frames(start, end))
        assert each.chunk.data == expected


def test_a_page_of_the_log_has_no_place_to_be_known_by() -> None:
    """Two pages of one length are not one."""
    replays = Replays()
    pages = [Piece([sse.message_frame(seq, b"{}")], seq, None, 1) for seq in (1, 2)]
    made = [replays.of(_tail(0), page).chunk.data for page in pages]
    assert made[0] != made[1]


def test_few_replays_are_kept() -> None:
    """Memory is bounded, whoever comes back from wherever."""
    tail, replays = _tail(40), Replays()
    first = replays.of(tail, _piece(tail, 0, 80))
    for start in range(1, 60):
        replays.of(tail, _piece(tail, start, 80))
    assert len(replays._kept) <= 16
    assert replays.of(tail, _piece(tail, 0, 80)) is not first
