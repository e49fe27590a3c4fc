"""The tail: newest entries in memory, messages contiguous (I3), readers as indices."""

from __future__ import annotations

import pytest

from streams.model import sse
from streams.model.ids import EntryId
from streams.tail.tail import Offered, Tail, offer_all
from tests.support.entries import entry, ids_of, message_entry, transient_entry


def _tail(
    last_seq: int = 0, *, k: int = 0, max_entries: int = 1024, max_bytes: int = 1 << 20
) -> Tail:
    return Tail(
        "p", last_seq=last_seq, position=EntryId(last_seq, k),
        max_entries=max_entries, max_bytes=max_bytes,
    )  # fmt: skip


def _filled(tail: Tail, *ids: tuple[int, int]) -> Tail:
    assert offer_all(tail, [entry(EntryId(*each)) for each in ids]) == []
    return tail


def test_the_next_message_is_taken() -> None:
    """I3: an entry that meets the last one is shown."""
    tail = _tail(4)
    assert tail.offer(message_entry(5)) is Offered.TAKEN
    assert tail.last_seq == 5


@pytest.mark.parametrize("seq", [1, 3, 4])
def test_a_message_that_the_tail_has_is_a_repeat(seq: int) -> None:
    """G3: a message is shown once, however often it arrives."""
    tail = _tail(4)
    assert tail.offer(message_entry(seq)) is Offered.REPEAT
    assert tail.end_index == 0


@pytest.mark.parametrize("seq", [6, 200])
def test_a_message_after_a_hole_is_refused(seq: int) -> None:
    """I3: what is between is fetched before anything newer is shown."""
    tail = _tail(4)
    assert tail.offer(message_entry(seq)) is Offered.GAP
    assert (tail.last_seq, tail.end_index) == (4, 0)


def test_a_transient_entry_after_a_message_that_is_missing_is_refused() -> None:
    """§2: a transient entry comes after its message, never before it."""
    assert _tail(4).offer(transient_entry(5, 1)) is Offered.GAP


def test_a_late_transient_entry_is_taken() -> None:
    """G6: at least once, even when newer messages came first."""
    tail = _filled(_tail(4), (5, 0), (6, 0))
    assert tail.offer(transient_entry(5, 1)) is Offered.TAKEN
    assert ids_of(tail.frames(0)) == [(5, 0), (6, 0), (5, 1)]


def test_offering_many_stops_at_the_first_gap() -> None:
    """I3: the rest waits until the gap is filled."""
    tail = _tail(0)
    left = offer_all(tail, [message_entry(1), message_entry(3), message_entry(2)])
    assert [each.id.seq for each in left] == [3, 2]
    assert tail.last_seq == 1


def test_a_frame_is_made_once() -> None:
    """§6: a message is framed once per process: all readers get the same object."""
    tail = _filled(_tail(0), (1, 0))
    assert tail.frames(0)[0] is tail.frames(0)[0]


def test_a_message_is_framed_with_its_seq_as_id() -> None:
    """§6: the id of `message.new` is the seq; the data is what the window has."""
    tail = _tail(6)
    tail.offer(message_entry(7, data=b'{"seq":7}'))
    assert tail.frames(0) == [b'event: message.new\ndata: {"seq":7}\nid: 7\n\n']


def test_a_cursor_is_covered_from_where_memory_begins() -> None:
    """The trim edge: cursor `lo - 1` is covered, a lower one is not."""
    tail = _filled(_tail(4), (5, 0), (6, 0))
    assert [cursor for cursor in range(9) if tail.covers(cursor)] == [4, 5, 6]


def test_a_cursor_before_transient_entries_that_the_tail_lacks_is_not_covered() -> None:
    """G6: a tail that began at `4-2` does not have the entries between `4-0` and `4-2`."""
    tail = _tail(4, k=2)
    assert not tail.covers(4)


def test_the_index_after_a_cursor_is_that_of_the_entry_after_the_message() -> None:
    """A reader gets what follows message n, its transient entries first."""
    tail = _filled(_tail(4), (4, 1), (5, 0), (5, 1), (6, 0))
    assert ids_of(tail.frames(tail.index_after(5))) == [(5, 1), (6, 0)]


def test_a_cursor_where_memory_begins_gets_the_transient_entries_too() -> None:
    """§2: everything after message 4 includes `4-1`."""
    tail = _filled(_tail(4), (4, 1), (5, 0))
    assert ids_of(tail.frames(tail.index_after(4))) == [(4, 1), (5, 0)]


def test_the_newest_entries_stay_within_the_bound_of_entries() -> None:
    """Every buffer is bounded; the newest entries are kept."""
    tail = _filled(_tail(0, max_entries=3), *((seq, 0) for seq in range(1, 8)))
    tail.trim()
    assert ids_of(tail.frames(tail.first_index)) == [(5, 0), (6, 0), (7, 0)]


def test_the_newest_entries_stay_within_the_bound_of_bytes() -> None:
    """Every buffer is bounded, in bytes too."""
    tail = _filled(_tail(0, max_bytes=700), *((seq, 0) for seq in range(1, 8)))
    tail.trim()
    assert tail.size_bytes <= 700
    assert tail.size_bytes == sum(map(len, tail.frames(tail.first_index)))


def test_the_newest_entry_stays_whatever_its_size() -> None:
    """A message larger than the bound still reaches the readers."""
    tail = _filled(_tail(0, max_bytes=1), (1, 0), (2, 0))
    tail.trim()
    assert ids_of(tail.frames(tail.first_index)) == [(2, 0)]


def test_what_was_trimmed_is_no_longer_covered() -> None:
    """A reader below is served by a lower tier, never from the oldest entry in memory."""
    tail = _filled(_tail(0, max_entries=2), (1, 0), (2, 0), (3, 0), (4, 0))
    tail.trim()
    assert [cursor for cursor in range(6) if tail.covers(cursor)] == [2, 3, 4]


def test_trimming_a_transient_entry_uncovers_the_message_before_it() -> None:
    """G6: a cursor at message 2 no longer gets `2-1` from here."""
    tail = _filled(_tail(1, max_entries=1), (2, 0), (2, 1), (3, 0))
    tail.trim()
    assert not tail.covers(2)
    assert tail.covers(3)


def test_trimming_a_late_transient_entry_does_not_lower_the_floor() -> None:
    """The floor is the newest of the entries that were dropped."""
    tail = _filled(_tail(4, max_entries=1), (5, 0), (6, 0), (5, 1), (7, 0))
    tail.trim()
    assert tail.floor == EntryId(6, 0)


def test_indices_are_never_reused() -> None:
    """A slow reader notices by its index that its entries were dropped."""
    tail = _filled(_tail(0, max_entries=1), (1, 0), (2, 0))
    tail.trim()
    tail.restart(9, EntryId(9, 0))
    _filled(tail, (10, 0))
    assert (tail.first_index, tail.end_index) == (2, 3)


def test_entries_added_below_get_smaller_indices() -> None:
    """The indices of readers stay valid when the tail grows downwards."""
    tail = _filled(_tail(4), (5, 0))
    tail.extend_down([message_entry(3), transient_entry(3, 1), message_entry(4)], EntryId(2, 0))
    assert (tail.first_index, tail.end_index) == (-3, 1)
    assert ids_of(tail.frames(tail.first_index)) == [(3, 0), (3, 1), (4, 0), (5, 0)]
    assert tail.covers(2)


def test_extending_down_takes_only_entries_below_the_floor() -> None:
    """G3: an entry that the tail has is not added a second time."""
    tail = _filled(_tail(4), (5, 0))
    tail.extend_down([message_entry(4), message_entry(5), message_entry(6)], EntryId(3, 0))
    assert ids_of(tail.frames(tail.first_index)) == [(4, 0), (5, 0)]


def test_a_cursor_is_found_from_an_index() -> None:
    """The cursor of a reader is the last message before its index."""
    tail = _filled(_tail(4), (4, 1), (5, 0), (5, 1), (6, 0))
    assert [tail.seq_before(index) for index in range(5)] == [4, 4, 5, 5, 6]


def test_listeners_are_called_before_the_tail_is_trimmed() -> None:
    """A reader that keeps up reads from memory, even when a batch is larger than the bound."""
    tail = _tail(0, max_entries=1)
    seen: list[int] = []
    tail.listen(lambda: seen.append(len(tail.frames(0))), lambda _: None)
    _filled(tail, (1, 0), (2, 0), (3, 0))
    tail.notify()
    assert seen == [3]
    assert tail.first_index == 2


def test_a_signal_is_passed_on_and_not_kept() -> None:
    """§1: an ephemeral event is never stored."""
    tail = _tail(0)
    signals: list[bytes] = []
    tail.listen(lambda: None, signals.append)
    tail.signal(sse.event_frame("typing.start", b"{}"))
    assert signals == [b"event: typing.start\ndata: {}\n\n"]
    assert tail.end_index == 0


def test_a_removed_listener_is_not_called() -> None:
    """A connection that ended costs nothing."""
    tail = _tail(0)
    called: list[str] = []

    def changed() -> None:
        called.append("changed")

    def signalled(_: bytes) -> None:
        called.append("signalled")

    tail.listen(changed, signalled)
    tail.unlisten(changed, signalled)
    tail.notify()
    tail.signal(b"")
    assert called == []


def test_an_entry_that_is_in_no_stream_comes_before_all_later_ones() -> None:
    """What this process read from the log: it moves neither the position nor a cursor."""
    tail = Tail("p", last_seq=2, position=EntryId(2, 5))
    tail.put("answer.state", b"{}")
    assert (tail.frames(0), tail.position, tail.last_seq) == (
        [b"event: answer.state\ndata: {}\n\n"], EntryId(2, 5), 2,
    )  # fmt: skip
    assert tail.offer(message_entry(3)) is Offered.TAKEN
