"""Readers: the highest tier that covers the cursor, pieces, and shared fetches."""

from __future__ import annotations

import asyncio

import pytest

from streams.model.errors import LogUnavailable
from streams.model.ids import EntryId
from streams.tail.lower_tiers import MAX_PIECE_BYTES, PAGE_MESSAGES
from streams.tail.reader import Reader
from streams.tail.tail import Tail, offer_all
from tests.support.entries import entry, ids_of, message_entry
from tests.support.fake_tiers import FakeProject


def _tail(project: FakeProject, *, below: int = 0) -> Tail:
    """Return a tail made when the head was `below`, with all entries since."""
    tail = Tail("p", last_seq=below, position=EntryId(below, 0))
    offer_all(tail, [entry(each) for each in project.stream if each > (below, 0)])
    return tail


def _project(head: int, *, window_messages: int = 200) -> FakeProject:
    project = FakeProject(window_messages=window_messages)
    project.append(head)
    return project


def _seqs(frames: list[bytes]) -> list[int]:
    return [each.seq for each in ids_of(frames)]


async def test_memory_serves_what_it_covers() -> None:
    """docs/design.md: a reader is served by the highest tier that covers its cursor."""
    project = _project(5)
    reader = Reader(_tail(project), project.tiers(), 3)
    assert _seqs((await reader.read()).frames) == [4, 5]
    assert reader.source == "memory"
    assert (project.window_reads, project.log_reads) == (0, 0)


async def test_the_window_serves_what_memory_does_not_cover() -> None:
    """docs/design.md: memory, then Redis."""
    project = _project(5)
    reader = Reader(_tail(project, below=5), project.tiers(), 3)
    assert _seqs((await reader.read()).frames) == [4, 5]
    assert reader.source == "redis"
    assert project.log_reads == 0


async def test_the_log_serves_what_the_window_lacks() -> None:
    """G2: what Redis lacks comes from Postgres."""
    project = _project(300)
    reader = Reader(_tail(project, below=300), project.tiers(), 99)
    assert _seqs((await reader.read(limit=2)).frames) == [100, 101]
    assert reader.source == "postgres"


async def test_the_log_serves_when_redis_is_down() -> None:
    """G7: Redis being down ends no stream."""
    project = _project(5)
    project.redis_answers = False
    reader = Reader(_tail(project, below=5), project.tiers(), 3)
    assert _seqs((await reader.read()).frames) == [4, 5]
    assert reader.source == "postgres"


@pytest.mark.parametrize(("cursor", "source"), [(100, "redis"), (99, "postgres")])
async def test_the_window_covers_exactly_its_messages(cursor: int, source: str) -> None:
    """§1: a window of messages `lo` to `hi` covers cursor `lo - 1` and no lower one."""
    project = _project(300)
    reader = Reader(_tail(project, below=300), project.tiers(), cursor)
    first = (await reader.read()).frames[0]
    assert _seqs([first]) == [cursor + 1]
    assert reader.source == source


@pytest.mark.parametrize("first", [102, 103, 250])
async def test_a_shorter_window_serves_from_its_own_first_message_on(first: int) -> None:
    """§2: a contiguous run that ends at head is used, however short it is."""
    project = _project(300)
    project.stream = [each for each in project.stream if each.seq >= first]
    reader = Reader(_tail(project, below=300), project.tiers(), first - 1)
    assert _seqs((await reader.read()).frames[:1]) == [first]
    assert reader.source == "redis"


async def test_a_window_that_was_lost_is_not_used_below_its_new_start() -> None:
    """G2: losing Redis never makes a client miss a message."""
    project = _project(5)
    project.stream = [EntryId(5, 0)]
    reader = Reader(_tail(project, below=5), project.tiers(), 1)
    assert _seqs((await reader.read()).frames) == [2, 3, 4]


async def test_a_window_that_is_behind_still_gives_its_transient_entries() -> None:
    """G6: an unpublished commit does not hide what the window has."""
    project = _project(10)
    late = project.append_transient()
    project.head += 1
    reader = Reader(_tail(project, below=11), project.tiers(), 8)
    frames = (await reader.read()).frames
    assert ids_of(frames) == [EntryId(9, 0), EntryId(10, 0), late, EntryId(11, 0)]
    assert reader.seq == 11


async def test_a_window_with_a_hole_is_not_used() -> None:
    """docs/design.md: no tier above the log is used unless its seqs meet end to end."""
    project = _project(5)
    project.stream = [EntryId(2, 0), EntryId(3, 0), EntryId(5, 0)]
    reader = Reader(_tail(project, below=5), project.tiers(), 1)
    assert _seqs((await reader.read()).frames) == [2, 3, 4, 5]


async def test_a_stale_window_is_not_used() -> None:
    """G2: restoring or failing over Redis never makes a client miss a message."""
    project = _project(5)
    project.stream = [EntryId(1, 0), EntryId(2, 0), EntryId(3, 0)]
    reader = Reader(_tail(project, below=5), project.tiers(), 1)
    assert _seqs((await reader.read()).frames) == [2, 3, 4, 5]


async def test_a_piece_ends_at_the_limit() -> None:
    """§6: at most 200 messages are replayed; a piece has at most `limit` messages."""
    project = _project(10)
    reader = Reader(_tail(project), project.tiers(), 0)
    piece = await reader.read(limit=4)
    assert (_seqs(piece.frames), piece.last_seq, piece.messages) == ([1, 2, 3, 4], 4, 4)


async def test_transient_entries_after_the_last_message_of_a_piece_come_with_the_next() -> None:
    """§2: nothing is lost between two pieces."""
    project = _project(2)
    project.append_transient()
    project.append(1)
    reader = Reader(_tail(project), project.tiers(), 0)
    first = await reader.read(limit=2)
    second = await reader.read(limit=2)
    assert ids_of(first.frames + second.frames) == [(1, 0), (2, 0), (2, 1), (3, 0)]


async def test_a_piece_ends_at_the_given_index_of_the_tail() -> None:
    """§6: the replay ends where live begins."""
    project = _project(3)
    tail = _tail(project)
    end = tail.end_index
    offer_all(tail, [message_entry(4)])
    reader = Reader(tail, project.tiers(), 0)
    assert _seqs((await reader.read(end_index=end)).frames) == [1, 2, 3]


@pytest.mark.parametrize("from_memory", [True, False])
async def test_a_piece_is_bounded_in_bytes(from_memory: bool) -> None:
    """Every buffer is bounded: 200 messages of 64 KiB are not one piece."""
    project = _project(0)
    tail = Tail("p", last_seq=0, position=EntryId(0, 0), max_bytes=1 << 30)
    big = b'"' + b"x" * 65_000 + b'"'
    offer_all(tail, [message_entry(seq, data=big) for seq in range(1, 21)])
    if from_memory:
        reader = Reader(tail, project.tiers(), 0)
        piece = await reader.read()
        assert sum(map(len, piece.frames)) <= MAX_PIECE_BYTES
        assert piece.last_seq == len(piece.frames)
    else:
        project.append(20_000)
        empty = Tail("p", last_seq=20_000, position=EntryId(20_000, 0))
        reader = Reader(empty, project.tiers(), 0)
        piece = await reader.read(limit=20_000)
        assert len(piece.frames) <= PAGE_MESSAGES


async def test_one_entry_above_the_bound_is_a_piece() -> None:
    """A reader must get past an entry that is larger than the bound."""
    project = _project(0)
    tail = Tail("p", last_seq=0, position=EntryId(0, 0))
    offer_all(tail, [message_entry(1, data=b"x" * (MAX_PIECE_BYTES + 1))])
    reader = Reader(tail, project.tiers(), 0)
    assert len((await reader.read()).frames) == 1


async def test_at_the_end_a_piece_is_empty() -> None:
    """A reader that has everything does not read the lower tiers."""
    project = _project(3)
    reader = Reader(_tail(project, below=3), project.tiers(), 3)
    piece = await reader.read()
    assert (piece.frames, reader.at_end) == ([], True)
    assert (project.window_reads, project.log_reads) == (0, 0)


async def test_a_cursor_ahead_of_this_process_gets_nothing_yet() -> None:
    """The cursor came from a process that was ahead: this tail catches up, nothing is repeated."""
    project = _project(3)
    tail = _tail(project)
    reader = Reader(tail, project.tiers(), 5)
    assert (await reader.read()).frames == []
    offer_all(tail, [message_entry(seq) for seq in (4, 5, 6)])
    assert _seqs((await reader.read()).frames) == [6]


async def test_a_reader_does_not_move_when_the_log_does_not_answer() -> None:
    """While Postgres is down the stream stays open, and continues where it was."""
    project = _project(300)
    project.postgres_answers = False
    reader = Reader(_tail(project, below=300), project.tiers(), 7)
    with pytest.raises(LogUnavailable):
        await reader.read()
    project.postgres_answers = True
    assert _seqs((await reader.read(limit=1)).frames) == [8]


async def test_a_reader_slower_than_the_tail_catches_up_in_order() -> None:
    """§6: a slow client falls back to the window and then the log, and catches up in order."""
    project = _project(3)
    tail = Tail("p", last_seq=0, position=EntryId(0, 0), max_entries=4)
    offer_all(tail, [message_entry(seq) for seq in (1, 2, 3)])
    reader = Reader(tail, project.tiers(), 0)
    await reader.read(limit=2)
    project.append(500)
    offer_all(tail, [message_entry(seq) for seq in range(4, 504)])
    tail.trim()
    got: list[int] = []
    while frames := (await reader.read()).frames:
        got += _seqs(frames)
    assert got == list(range(3, 504))


async def test_equal_pages_are_read_once() -> None:
    """docs/design.md: equal requests share one fetch; a thousand clients cost about one read."""
    project = _project(1000)
    tiers = project.tiers()
    tail = _tail(project, below=1000)
    readers = [Reader(tail, tiers, 10) for _ in range(50)]
    pieces = await asyncio.gather(*(reader.read() for reader in readers))
    assert all(_seqs(piece.frames)[0] == 11 for piece in pieces)
    assert project.log_reads == 1


async def test_the_window_is_read_once_for_many_readers() -> None:
    """docs/design.md: the same for Redis, whatever the cursors."""
    project = _project(200)
    tiers = project.tiers()
    tail = _tail(project, below=200)
    readers = [Reader(tail, tiers, cursor) for cursor in range(0, 200, 10)]
    pieces = await asyncio.gather(*(reader.read() for reader in readers))
    assert [_seqs(piece.frames)[0] for piece in pieces] == list(range(1, 201, 10))
    assert (project.window_reads, project.log_reads) == (1, 0)


async def test_a_cancelled_reader_does_not_end_the_fetch_of_the_others() -> None:
    """docs/design.md: a fetch runs in a task that no client's disconnect can cancel."""
    project = _project(1000)
    tiers = project.tiers()
    tail = _tail(project, below=1000)
    leaving = asyncio.create_task(Reader(tail, tiers, 10).read())
    staying = asyncio.create_task(Reader(tail, tiers, 10).read())
    await asyncio.sleep(0)  # both have asked
    leaving.cancel()
    assert _seqs((await staying).frames)[0] == 11


async def test_a_slow_reader_gets_nothing_twice_after_the_tail_was_extended() -> None:
    """G3: an entry that only this process had left memory; what is put back has other indices."""
    project = FakeProject()
    tail = Tail("p", last_seq=0, position=EntryId(0, 0), max_entries=4)

    def deliver(count: int) -> None:
        project.append(count)
        offer_all(tail, [entry(each) for each in project.stream if each > tail.position])
        tail.position = project.stream[-1]
        tail.notify()

    deliver(1)
    slow, other = (Reader(tail, project.tiers(), 0) for _ in range(2))
    assert _seqs((await slow.read()).frames) == [1]
    tail.put("build.status", b"{}")
    deliver(4)
    assert slow.lost_its_place
    assert _seqs((await other.read()).frames) == [1, 2, 3, 4, 5]
    assert slow.lost_its_place
    assert _seqs((await slow.read()).frames) == [2, 3, 4, 5]
