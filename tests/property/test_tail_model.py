"""The tail against a list, after any operations in any order (I3, docs/design.md)."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from streams.model.ids import EntryId
from streams.tail.tail import Offered, Tail
from tests.support.entries import entry, ids_of, message_entry, transient_entry

MAX_ENTRIES = 6


class TailMachine(RuleBasedStateMachine):
    """The model: all entries of the stream as a list, and where the tail begins in it."""

    def __init__(self) -> None:
        super().__init__()
        self.below: list[EntryId] = []  # in the stream, oldest first, before what the tail has
        self.kept: list[EntryId] = []
        self.offset = 0  # the tail's index of kept[0]
        self.floor = EntryId(0, 0)
        self.last_seq = 0

    @initialize(head=st.integers(0, 8), k=st.integers(0, 2))
    def begin(self, head: int, k: int) -> None:
        self.below = [EntryId(seq, 0) for seq in range(1, head + 1)]
        self.below += [EntryId(head, each) for each in range(1, k + 1)]
        self.floor = EntryId(head, k)
        self.last_seq = head
        self.tail = Tail("p", last_seq=head, position=self.floor, max_entries=MAX_ENTRIES)

    @rule(ahead=st.integers(-3, 3))
    def offer_message(self, ahead: int) -> None:
        seq = max(1, self.last_seq + ahead)
        outcome = self.tail.offer(message_entry(seq))
        if seq == self.last_seq + 1:
            assert outcome is Offered.TAKEN
            self.kept.append(EntryId(seq, 0))
            self.last_seq = seq
        else:
            assert outcome is (Offered.REPEAT if seq <= self.last_seq else Offered.GAP)

    @rule(ahead=st.integers(-2, 1), k=st.integers(1, 3))
    def offer_transient(self, ahead: int, k: int) -> None:
        seq = max(0, self.last_seq + ahead)
        outcome = self.tail.offer(transient_entry(seq, k))
        if seq > self.last_seq:
            assert outcome is Offered.GAP
        else:
            assert outcome is Offered.TAKEN
            self.kept.append(EntryId(seq, k))

    @rule()
    def trim(self) -> None:
        self.tail.trim()
        while len(self.kept) > MAX_ENTRIES:
            dropped = self.kept.pop(0)
            self.below.append(dropped)
            self.floor = max(self.floor, dropped)
            self.offset += 1

    @precondition(lambda self: self.floor > (0, 0))
    @rule(depth=st.integers(1, 6))
    def extend_down(self, depth: int) -> None:
        new_floor = EntryId(max(0, self.floor.seq - depth), 0)
        # What the window returns: all entries after the new floor, in order of their ids.
        window = sorted({each for each in (*self.below, *self.kept) if each > new_floor})
        self.tail.extend_down([entry(each) for each in window], new_floor)
        added = [each for each in window if each <= self.floor]
        self.kept = added + self.kept
        self.offset -= len(added)
        self.below = [each for each in self.below if each <= new_floor]
        self.floor = new_floor

    @rule(head=st.integers(0, 12))
    def restart(self, head: int) -> None:
        self.tail.restart(head, EntryId(head, 0))
        self.offset += len(self.kept)
        self.kept = []
        self.below = [EntryId(seq, 0) for seq in range(1, head + 1)]
        self.floor = EntryId(head, 0)
        self.last_seq = head

    @invariant()
    def the_entries_are_those_of_the_list(self) -> None:
        assert ids_of(self.tail.frames(self.tail.first_index)) == self.kept
        assert self.tail.first_index == self.offset

    @invariant()
    def the_messages_are_contiguous(self) -> None:
        seqs = [each.seq for each in self.kept if each.k == 0]
        assert seqs == list(range(self.tail.low_seq, self.last_seq + 1))
        assert self.tail.last_seq == self.last_seq

    @invariant()
    def every_covered_cursor_gets_all_that_follows(self) -> None:
        for cursor in range(self.last_seq + 3):
            covered = self.tail.covers(cursor)
            assert covered == (self.floor <= (cursor, 0) and cursor <= self.last_seq)
            if covered:
                start = self.tail.index_after(cursor)
                assert ids_of(self.tail.frames(start)) == self._after(cursor)

    @invariant()
    def every_index_has_its_cursor(self) -> None:
        for place in range(len(self.kept) + 1):
            seqs = [each.seq for each in self.kept[:place] if each.k == 0]
            expected = seqs[-1] if seqs else self.tail.low_seq - 1
            assert self.tail.seq_before(self.offset + place) == expected

    @invariant()
    def every_slice_is_that_of_the_list(self) -> None:
        all_frames = self.tail.frames(self.tail.first_index)
        for start in range(len(all_frames) + 1):
            for end in (start, start + 1, len(all_frames)):
                if start <= end <= len(all_frames):
                    frames = self.tail.frames(self.offset + start, self.offset + end)
                    assert frames == all_frames[start:end]

    @invariant()
    def the_size_is_counted(self) -> None:
        assert self.tail.size_bytes == sum(map(len, self.tail.frames(self.tail.first_index)))

    def _after(self, cursor: int) -> list[EntryId]:
        """Return what follows message `cursor` in the list."""
        if EntryId(cursor, 0) in self.kept:
            return self.kept[self.kept.index(EntryId(cursor, 0)) + 1 :]
        return self.kept


TestTail = TailMachine.TestCase
TestTail.settings = settings(max_examples=80, stateful_step_count=25)
