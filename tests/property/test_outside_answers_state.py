"""docs/protocol.md §5 as a state machine: what an assistant outside was told is taken, is there.

On a real Postgres. Requests bring new pieces, repeat and overlap old ones or leave a hole, alone or
several at once; answers are compared with the fold of the pieces that were acknowledged.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator, Sequence
from itertools import count
from typing import Any, TypeVar

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from service.operate.embedded import PostgresServer
from streams.answers.answer_errors import IndexGap
from streams.answers.answer_rows import AnswerRows
from streams.answers.answer_values import OutsideBounds, Received
from streams.answers.outside_rows import OutsideRows
from streams.answers.pieces import AnswerText, Piece, part_piece, text_piece
from streams.log.database import Database
from streams.log.log import Log, Unit
from streams.model.errors import PayloadTooLarge
from streams.model.events import NewMessage, prepare

T = TypeVar("T")

MAX_TEXT_BYTES = 300
_numbers = count(1)

TEXTS = st.builds(text_piece, st.text(st.sampled_from("ab\x00ü\U0001f600"), max_size=8))
GROWING = st.builds(
    lambda kind, rest, text: part_piece(kind, {**rest, "text": text}),
    st.sampled_from(["reasoning", "tool"]),
    st.sampled_from([{}, {"id": "1"}]),
    st.sampled_from(["", "x", "\n", "ü", "y" * 3000]),
)
WHOLE = st.builds(part_piece, st.just("data"), st.sampled_from([None, 1, [1], "z" * 9000]))
PIECES = st.lists(TEXTS | GROWING | WHOLE, max_size=6)


class _Servers:
    """A database with its own event loop: hypothesis is not asynchronous."""

    def __init__(self, url: str) -> None:
        self.runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self.database = self.run(Database.open(url, size=4))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def close(self) -> None:
        self.run(self.database.close())
        self.runner.close()


@pytest.fixture(scope="module")
def servers(postgres: PostgresServer, template_database: str) -> Iterator[_Servers]:
    """Return a database that only this file uses."""
    made = _Servers(postgres.create_database("outside_state", template=template_database))
    yield made
    made.close()
    postgres.psql('DROP DATABASE "outside_state" WITH (FORCE)')


def _fold(pieces: Sequence[Piece]) -> tuple[str, bytes]:
    """What an answer of these pieces says."""
    text = AnswerText(pieces)
    assert (text.truncated, text.left_out) == (False, False)
    return text.text, msgspec.json.encode(text.parts)


class _Machine(RuleBasedStateMachine):
    servers: _Servers

    def __init__(self) -> None:
        super().__init__()
        self.run = self.servers.run
        bounds = OutsideBounds(per_project=0, per_worker=0, max_text_bytes=MAX_TEXT_BYTES)
        self.outside = OutsideRows(self.servers.database, bounds)
        self.log = Log(self.servers.database)
        self.rows = AnswerRows(self.servers.database, self.log, lambda _: None)
        self.taken: list[Piece] = []
        # As readers get them from the stream, by index.
        self.published: dict[int, Piece] = {}

    @initialize()
    def begin(self) -> None:
        self.project = f"p-{next(_numbers)}"
        self.run(self._begin())

    async def _begin(self) -> None:
        await self.servers.database.execute(
            "INSERT INTO projects (id, owner_id, name) VALUES ($1, 'u', 'x')", self.project
        )
        unit = Unit(self.project, (prepare(NewMessage(user_id="u", text="why?")),))
        async with self.servers.database.transaction() as session:
            ((question,),) = await self.log.append([unit], session)  # type: ignore[misc]
        begun = await self.outside.begin(
            self.project, question.message.message_id, "bot", client_msg_id=None
        )
        self.answer = begun.answer

    async def _receive(self, index: int, pieces: Sequence[Piece]) -> Received:
        return await self.outside.receive(self.project, self.answer.id, "bot", index, pieces)

    def _sizes(self) -> tuple[int, int]:
        (row,) = self.run(
            self.servers.database.fetch("SELECT * FROM answers WHERE id = $1", self.answer.id)
        )
        return row["text_bytes"], row["parts_bytes"]

    def _note(self, received: Received) -> None:
        for index, piece in enumerate(received.pieces, received.first_index):
            assert index not in self.published
            self.published[index] = piece

    @rule(new=PIECES, back=st.integers(0, 8))
    def send(self, new: list[Piece], back: int) -> None:
        """Pieces from up to eight before the next on; what is known is sent as it was."""
        first = max(0, len(self.taken) - back)
        pieces = [*self.taken[first:], *new]
        if _is_too_large([*self.taken, *new]):
            with pytest.raises(PayloadTooLarge):
                self.run(self._receive(first, pieces))
            return
        received = self.run(self._receive(first, pieces))
        self.taken += new
        assert received.next_index == len(self.taken)
        self._note(received)

    @rule(length=st.integers(0, 5))
    def repeat(self, length: int) -> None:
        pieces = self.taken[:length]
        received = self.run(self._receive(0, pieces))
        assert (received.next_index, received.pieces) == (len(self.taken), ())

    @rule(new=PIECES, hole=st.integers(1, 5))
    def leave_a_hole(self, new: list[Piece], hole: int) -> None:
        with pytest.raises(IndexGap) as gap:
            self.run(self._receive(len(self.taken) + hole, new))
        assert gap.value.expected == len(self.taken)

    @rule(new=PIECES, cuts=st.lists(st.integers(0, 6), min_size=2, max_size=4))
    def send_at_once(self, new: list[Piece], cuts: list[int]) -> None:
        """Beginnings of the same pieces race: the longest is taken, each piece once."""
        if _is_too_large([*self.taken, *new]):
            return
        sent = [new[:cut] for cut in cuts]

        async def race() -> list[Received]:
            index = len(self.taken)
            return await asyncio.gather(*(self._receive(index, each) for each in sent))

        results = self.run(race())
        self.taken += new[: max(cuts)]
        assert max(each.next_index for each in results) == len(self.taken)
        for each in results:
            self._note(each)

    @invariant()
    def the_answer_is_what_was_taken(self) -> None:
        state = self.run(self.rows.state(self.project, self.answer.id))
        assert state is not None
        assert (state.text, msgspec.json.encode(state.parts)) == _fold(self.taken)
        text = AnswerText(self.taken)
        assert self._sizes() == (text.text_bytes, text.parts_bytes)
        assert sorted(self.published) == list(range(state.index + 1))
        assert _fold([self.published[index] for index in range(state.index + 1)]) == _fold(
            self.taken
        )


def _is_too_large(pieces: Sequence[Piece]) -> bool:
    text = AnswerText(pieces, max_text_bytes=MAX_TEXT_BYTES)
    return text.truncated or text.left_out


def test_what_was_acknowledged_is_the_answer(servers: _Servers) -> None:
    """§5: the stored and the published pieces both say what was taken, whatever was sent."""
    _Machine.servers = servers
    run_state_machine_as_test(
        _Machine,
        settings=settings(
            max_examples=10,
            stateful_step_count=25,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )
