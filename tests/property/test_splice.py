"""A reader over three tiers, with anything happening between its reads (docs/design.md).

docs/protocol.md G3: strictly increasing, each exactly once, nothing missing after the cursor.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from hypothesis import given
from hypothesis import strategies as st

from streams.model.errors import LogUnavailable
from streams.model.ids import EntryId
from streams.tail.reader import Reader
from streams.tail.tail import Tail, offer_all
from tests.support.entries import entry, ids_of
from tests.support.fake_tiers import FakeProject

WINDOW = 6
TAIL_ENTRIES = 4

Step = Literal["append", "transient", "lane", "trim", "flush", "redis", "postgres", "read"]

_steps = st.lists(
    st.sampled_from(["append", "append", "transient", "lane", "lane", "trim", "flush", "redis",
                     "postgres", "read", "read", "read"]),
    max_size=50,
)  # fmt: skip


class _World:
    """A project, its tail in this process, and a script of events, step by step."""

    def __init__(self, before: int, head: int, steps: list[Step]) -> None:
        self.project = FakeProject(window_messages=WINDOW)
        self.project.append(before)
        self.project.append_transient()
        self.project.append(head)
        last = self.project.stream[-1] if self.project.stream else EntryId(0, 0)
        self.tail = Tail("p", last_seq=last.seq, position=last, max_entries=TAIL_ENTRIES)
        self.project.meanwhile = self.meanwhile
        self._script: Iterator[Step] = iter(steps)

    def meanwhile(self) -> None:
        """Do the next steps of the script, up to the next read, while an answer is awaited."""
        for step in self._script:
            if step == "read":
                return
            self.do(step)

    def do(self, step: Step) -> None:
        project, tail = self.project, self.tail
        if step == "append":
            project.append()
        elif step == "transient":
            project.append_transient()
        elif step == "lane":
            new = [entry(each) for each in project.stream if each > tail.position]
            if new:
                tail.position = new[-1].id
                if offer_all(tail, new):
                    self.fill()
        elif step == "trim":
            tail.trim()
        elif step == "flush":
            project.flush()
            # The next publish puts the newest messages back.
            low = max(1, project.head - WINDOW + 1)
            project.stream = [EntryId(seq, 0) for seq in range(low, project.head + 1)]
        elif step == "redis":
            project.redis_answers = not project.redis_answers
        elif step == "postgres":
            project.postgres_answers = not project.postgres_answers

    def fill(self) -> None:
        """Fill the tail up to the head, as the process does after a gap."""
        for seq in range(self.tail.last_seq + 1, self.project.head + 1):
            offer_all(self.tail, [entry(EntryId(seq, 0))])
        self.tail.notify()


@given(st.integers(0, 9), st.integers(0, 9), st.integers(0, 18), st.integers(1, 7), _steps)
async def test_a_reader_gets_every_message_once_in_order(
    before: int, head: int, cursor: int, limit: int, steps: list[Step]
) -> None:
    """G3, whatever happens between the request for a page and its answer."""
    world = _World(before, head, steps)
    cursor = min(cursor, world.project.head)
    tiers = world.project.tiers()
    reader = Reader(world.tail, tiers, cursor)
    got: list[EntryId] = []
    for _ in range(len(steps) + 1):
        world.meanwhile()
        try:
            piece = await reader.read(limit=limit)
        except LogUnavailable:
            continue
        got += ids_of(piece.frames)
        assert piece.messages == sum(each.k == 0 for each in ids_of(piece.frames))
        assert piece.last_seq == reader.seq
    await _read_to_the_end(world, reader, got)
    await tiers.close()
    seqs = [each.seq for each in got if each.k == 0]
    assert seqs == list(range(cursor + 1, world.project.head + 1))


async def _read_to_the_end(world: _World, reader: Reader, got: list[EntryId]) -> None:
    """Read the rest while both servers answer and nothing new is committed."""
    world.project.redis_answers = world.project.postgres_answers = True
    world.project.meanwhile = lambda: None
    world.fill()
    while True:
        piece = await reader.read()
        if not piece.frames:
            break
        got += ids_of(piece.frames)
    assert reader.at_end


@given(st.integers(1, 5), st.integers(0, 5), st.integers(0, 5), st.booleans())
async def test_transient_entries_in_the_window_come_with_the_messages(
    before: int, after: int, cursor: int, began_late: bool
) -> None:
    """G6: at least once within the window, after the message that they follow."""
    project = FakeProject(window_messages=200)
    project.append(before)
    project.append_transient()
    project.append_transient()
    project.append(after)
    position = project.stream[-1] if began_late else EntryId(0, 0)
    tail = Tail("p", last_seq=position.seq, position=position)
    offer_all(tail, [entry(each) for each in project.stream if each > position])
    cursor = min(cursor, before)
    tiers = project.tiers()
    reader = Reader(tail, tiers, cursor)
    got: list[EntryId] = []
    while piece := (await reader.read()).frames:
        got += ids_of(piece)
    await tiers.close()
    assert got == [each for each in project.stream if each > (cursor, 0)]
