"""When the database is read for streams that open, and when a poll puts a state into a tail."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import cast

import pytest

from streams.answers.answer_events import delta_data, state_data
from streams.answers.answer_values import Answer, AnswerProgress, AnswerState
from streams.answers.answer_watch import AnswerWatch
from streams.answers.piece_rows import PieceRows
from streams.answers.pieces import text_piece
from streams.log.database import Database
from streams.model.errors import LogUnavailable
from streams.model.ids import EntryId
from streams.runtime.health import Health
from streams.runtime.observer import Observer
from streams.tail.registry import TailRegistry
from streams.tail.signal_fanout import OnNotice
from streams.tail.tail import Tail
from streams.window.window import Entry
from tests.support.answer_reader import AnswerReader
from tests.support.health import fail_redis
from tests.support.virtual_time import run_in_virtual_time

ID = "00000000-0000-4000-8000-000000000001"


class _Rows(PieceRows):
    """One answer of project `p`, as Postgres has it."""

    def __init__(self) -> None:
        super().__init__(cast("Database", None))
        self.text = "ab"
        self.index = 1
        self.reads = 0
        self.polls = 0
        self.takes_s = 0.01
        self.answers = True

    def state(self) -> AnswerState:
        answer = Answer(
            id=ID, project_id="p", user_id="u", question_seq=1, reply_to="q", worker_id="w"
        )
        return AnswerState(
            answer=answer, status="in_progress", text=self.text, parts=[], index=self.index
        )

    async def so_far(self, project_ids: Sequence[str]) -> list[AnswerState]:
        self.reads += 1
        await self._serve()
        return [self.state()]

    async def progress(self, project_ids: Sequence[str]) -> list[AnswerProgress]:
        self.polls += 1
        await self._serve()
        return [AnswerProgress(ID, "p", self.index, True, 0.0)]

    async def _serve(self) -> None:
        await asyncio.sleep(self.takes_s)
        if not self.answers:
            raise LogUnavailable("away")


class _Tails:
    """What the watch needs of a registry: it hears of tails and of signals."""

    def watch(self, made: Callable[[Tail], None], dropped: Callable[[Tail], None]) -> None:
        self.made, self.dropped = made, dropped

    def on_notice(self, callback: OnNotice) -> None:
        self.noticed = callback


class _World:
    """A process with one tail and one open stream on it."""

    def __init__(self) -> None:
        self.rows = _Rows()
        self.tails = _Tails()
        self.health = Health(Observer())
        self.watch = AnswerWatch(cast("TailRegistry", self.tails), self.rows, self.health)
        self.tail = Tail("p", last_seq=3, position=EntryId(3, 0))
        self.tails.made(self.tail)
        self.stream = AnswerReader()
        self.states = 0
        self._read = self.tail.end_index
        self.tail.listen(self._changed, self.stream.take)

    def _changed(self) -> None:
        for frame in self.tail.frames(self._read):
            self.states += frame.startswith(b"event: answer.state\n")
            self.stream.take(frame)
        self._read = self.tail.end_index

    async def open(self) -> AnswerReader:
        """Return what a stream shows that opens now."""
        await self.watch.ready(self.tail)
        reader = AnswerReader()
        for frame in self.watch.frames(self.tail):
            reader.take(frame)
        return reader

    def arrive(self, index: int, text: str) -> None:
        """Let a piece come through Redis."""
        data = delta_data(self.rows.state().answer, index, text_piece(text))
        self.tail.offer(Entry(EntryId(3, index + 1), "message.delta", data, 0))
        self.tail.notify()


def test_openings_of_the_same_moment_share_a_read() -> None:
    """A reconnect of thousands is one statement; all are shown the same bytes."""

    async def main() -> None:
        world = _World()
        await asyncio.gather(*[world.watch.ready(world.tail) for _ in range(1000)])
        assert world.rows.reads == 1
        first, second = world.watch.frames(world.tail), world.watch.frames(world.tail)
        assert first[0] is second[0]

    run_in_virtual_time(main())


def test_what_was_read_a_moment_ago_is_not_read_again() -> None:
    """Pieces come through the tail; after a second an unannounced answer could be there."""

    async def main() -> None:
        world = _World()
        await world.open()
        world.arrive(2, "c")
        reader = await world.open()
        assert (reader.answers[ID].text, world.rows.reads) == ("abc", 1)
        await asyncio.sleep(1.1)
        await world.open()
        assert world.rows.reads == 2

    run_in_virtual_time(main())


def test_a_hole_is_read_at_once() -> None:
    """A stream that opens is shown all that was stored, not what is known without the hole."""

    async def main() -> None:
        world = _World()
        await world.open()
        world.rows.text, world.rows.index = "abcd", 3
        world.arrive(3, "d")
        assert (await world.open()).answers[ID].text == "abcd"

    run_in_virtual_time(main())


def test_reads_for_openings_are_few_however_often_they_are_asked_for() -> None:
    """Holes that other programs forge cannot make the database busy: 20 reads a second at most."""

    async def main() -> None:
        world = _World()
        for n in range(100):
            world.arrive(n + 1000, "forged")
            await world.open()
        assert world.rows.reads <= 1 + asyncio.get_running_loop().time() / 0.05

    run_in_virtual_time(main())


def test_an_opening_does_not_wait_for_a_database_that_hangs() -> None:
    """It waits half a second at most, and the next ones not at all."""

    async def main() -> None:
        world = _World()
        world.rows.takes_s = 60.0
        loop = asyncio.get_running_loop()
        assert (await world.open()).answers == {}
        assert loop.time() == 0.5
        await asyncio.sleep(1.0)
        began = loop.time()
        assert (await world.open()).answers == {}
        assert loop.time() == began
        await world.watch.close()

    run_in_virtual_time(main())


def test_a_closed_opening_does_not_cancel_the_read_for_the_others() -> None:
    """A client that goes away while its stream opens."""

    async def main() -> None:
        world = _World()
        first = asyncio.create_task(world.open())
        second = asyncio.create_task(world.open())
        await asyncio.sleep(0.005)
        first.cancel()
        assert (await second).answers[ID].text == "ab"

    run_in_virtual_time(main())


def test_a_poll_shows_open_streams_what_did_not_come() -> None:
    """While Redis does not deliver, at the next poll; else what the last poll found is lacking."""

    async def main() -> None:
        world = _World()
        await world.open()
        fail_redis(world.health)
        world.rows.text, world.rows.index = "abc", 2
        await world.watch.once()
        assert world.stream.answers[ID].said == (2, "abc", [])
        await world.watch.once()
        assert world.states == 1

    run_in_virtual_time(main())


@pytest.mark.parametrize("polls", [5, 21])
def test_a_long_answer_is_shown_less_often(polls: int) -> None:
    """About 32 KiB a second of each answer and client, however long the answer is."""

    async def main() -> None:
        world = _World()
        fail_redis(world.health)
        for n in range(polls):
            world.rows.text, world.rows.index = "x" * 64_000, n
            await world.watch.once()
            await asyncio.sleep(0.2)
        elapsed_s = asyncio.get_running_loop().time()
        assert world.states == 1 + int(elapsed_s / 2.0)

    run_in_virtual_time(main())


def test_polls_and_openings_wait_quietly_while_postgres_is_away() -> None:
    """Nothing is told, nothing is raised; what was known is still shown."""

    async def main() -> None:
        world = _World()
        await world.open()
        fail_redis(world.health)
        world.rows.answers = False
        world.rows.index = 5
        await world.watch.once()
        await asyncio.sleep(1.1)
        assert (await world.open()).answers[ID].text == "ab"
        assert world.states == 0

    run_in_virtual_time(main())


def test_a_tail_that_was_dropped_meanwhile_is_left_alone() -> None:
    """The last reader of the project went away during a read or a poll."""

    async def main() -> None:
        world = _World()
        opening = asyncio.create_task(world.watch.ready(world.tail))
        polling = asyncio.create_task(world.watch.once())
        await asyncio.sleep(0.005)
        world.tails.dropped(world.tail)
        await asyncio.gather(opening, polling)
        assert world.watch.frames(world.tail) == []
        assert world.states == 0

    run_in_virtual_time(main())


def test_a_beginning_is_passed_on_and_nothing_else_under_its_name() -> None:
    """§6: `answer.state` also comes when an answer begins; a forged text does not."""

    async def main() -> None:
        world = _World()
        world.rows.text, world.rows.index = "", -1
        begin = state_data(world.rows.state())
        world.tails.noticed("other", "answer.state", begin)
        world.rows.text = "forged"
        world.tails.noticed("p", "answer.state", state_data(world.rows.state()))
        assert world.stream.answers == {}
        world.tails.noticed("p", "answer.state", begin)
        assert world.stream.answers[ID].said == (-1, "", [])

    run_in_virtual_time(main())
