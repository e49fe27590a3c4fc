"""docs/protocol.md §5 as a state machine: an answer ends once, with its text so far.

On a real Postgres. Several workers, some of which lost their lease without noticing, write, store,
end and take over in any order, while members ask for stops.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
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
from streams.answers.answer_ends import Ending
from streams.answers.answer_rows import AnswerRows
from streams.answers.answer_values import Answer
from streams.answers.piece_rows import NewPiece, PieceRows
from streams.answers.pieces import part_piece, text_piece
from streams.log.database import Database
from streams.log.log import Log
from streams.model.events import Message, NewMessage

T = TypeVar("T")

WORKERS = st.sampled_from(["w1", "w2"])
# Chooses among what there is, so that few steps do nothing.
ANY = st.integers(0, 5)
USERS = st.sampled_from(["u1", "u2"])
_numbers = count(1)


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
    made = _Servers(postgres.create_database("answers_state", template=template_database))
    yield made
    made.close()
    postgres.psql('DROP DATABASE "answers_state" WITH (FORCE)')


class _Known(msgspec.Struct):
    """An answer by the model. Each worker that ever had it keeps the text that it knows."""

    answer: Answer
    holder: str
    texts: dict[str, str]
    stored: str = ""
    parts: int = 0
    pieces: int = 0
    is_expired: bool = False
    stop_by: str | None = None
    is_stop_old: bool = False
    ended_as: str | None = None
    ended_text: str = ""


class _Machine(RuleBasedStateMachine):
    servers: _Servers

    def __init__(self) -> None:
        super().__init__()
        self.run = self.servers.run
        self.log = Log(self.servers.database)
        self.published: list[Message] = []
        self.rows = AnswerRows(self.servers.database, self.log, self.published.append)
        self.piece_rows = PieceRows(self.servers.database)
        self.project = f"p-{next(_numbers)}"
        self.known: list[_Known] = []
        self._sql("DELETE FROM answers")
        self._sql(f"INSERT INTO projects (id, owner_id, name) VALUES ('{self.project}', 'u', 'x')")

    def _sql(self, text: str) -> None:
        self.run(self.servers.database.execute(text))

    def _any_answer(self, number: int) -> _Known:
        """An answer that has not ended, as long as there is one."""
        unfinished = [each for each in self.known if each.ended_as is None]
        among = unfinished or self.known
        return among[number % len(among)]

    @initialize()
    def begin(self) -> None:
        for number in range(3):
            message = NewMessage(user_id="u", text="why?", mode="plan", client_msg_id=f"c{number}")
            begun = self.run(self.rows.begin(self.project, message, "w1", lease_s=3600))
            again = self.run(self.rows.begin(self.project, message, "w2", lease_s=3600))
            assert (begun.is_ours, again.is_ours, again.answer) == (True, False, begun.answer)
            self.known.append(_Known(begun.answer, "w1", {"w1": ""}))

    @rule(answer=ANY, worker=WORKERS)
    def write_and_store(self, answer: int, worker: str) -> None:
        """Of a worker that lost the answer nothing is stored; storing again changes nothing."""
        known = self._any_answer(answer)
        if worker not in known.texts:
            return
        written = known.texts[worker][len(known.stored) :] + f"{worker} "
        known.texts[worker] = known.stored + written
        pieces = [
            NewPiece(known.answer.id, known.pieces, text_piece(written)),
            NewPiece(known.answer.id, known.pieces + 1, part_piece("data", known.pieces)),
        ]
        is_holder = known.ended_as is None and known.holder == worker
        for _ in range(2):
            owned = self.run(self.piece_rows.store(pieces, worker))
            assert owned == ({known.answer.id: known.stop_by} if is_holder else {})
        if is_holder:
            known.stored = known.texts[worker]
            known.pieces += 2
            known.parts += 1

    @rule(answer=ANY, worker=WORKERS)
    def renew(self, answer: int, worker: str) -> None:
        known = self._any_answer(answer)
        owned = self.run(self.rows.renew([known.answer.id], worker, lease_s=3600))
        is_holder = known.ended_as is None and known.holder == worker
        assert owned == ({known.answer.id: known.stop_by} if is_holder else {})
        if is_holder:
            known.is_expired = False

    @rule(answer=ANY)
    def write(self, answer: int) -> None:
        known = self._any_answer(answer)
        for worker in known.texts:
            known.texts[worker] += "more "

    @rule(answer=ANY)
    def time_passes(self, answer: int) -> None:
        known = self._any_answer(answer)
        if known.ended_as is None:
            self._sql(
                "UPDATE answers SET lease_until = now() - interval '1 s'"
                f" WHERE id = '{known.answer.id}'"
            )
            known.is_expired = True

    @rule(answer=ANY)
    def a_stop_is_not_noticed(self, answer: int) -> None:
        asked = [each for each in self.known if each.stop_by is not None]
        if asked:
            known = asked[answer % len(asked)]
            self._sql(
                "UPDATE answers SET stop_requested_at = now() - interval '1 min'"
                f" WHERE id = '{known.answer.id}'"
            )
            known.is_stop_old = True

    @rule(worker=WORKERS)
    def take_over(self, worker: str) -> None:
        taken = self.run(self.rows.take_over(worker, lease_s=3600, stop_patience_s=30))
        by_id = {each.id: each for each in taken}
        for known in self.known:
            is_abandoned = known.ended_as is None and (
                known.is_expired or (known.is_stop_old and known.holder != worker)
            )
            assert (known.answer.id in by_id) is is_abandoned
            if is_abandoned:
                known.holder = worker
                known.texts[worker] = known.stored
                known.is_expired = False

    @rule(answer=ANY, user=USERS)
    def stop(self, answer: int, user: str) -> None:
        known = self._any_answer(answer)
        requested = self.run(self.rows.request_stop(self.project, known.answer.id, user))
        assert requested is not None
        assert requested.is_new is (known.ended_as is None and known.stop_by is None)
        assert requested.status == (known.ended_as or "in_progress")
        if requested.is_new:
            known.stop_by = user

    @rule(answer=ANY, worker=WORKERS, reason=st.sampled_from([None, "it broke"]))
    def end(self, answer: int, worker: str, reason: str | None) -> None:
        known = self._any_answer(answer)
        if worker not in known.texts:
            return
        ending = Ending(text=known.texts[worker], reason=reason)
        message = self.run(self.rows.end(known.answer, worker, ending))
        assert (message is not None) is (known.ended_as is None and known.holder == worker)
        if message is not None:
            self._ended(known, message)
            assert (known.ended_as == "completed") is (reason is None)
            assert (known.ended_as == "stopped") is (reason is not None and bool(known.stop_by))

    @rule(answer=ANY, user=USERS)
    def everything_at_once(self, answer: int, user: str) -> None:
        """A stop races with a complete and a failed end by every worker that ever had it."""
        known = self._any_answer(answer)

        async def race() -> list[Any]:
            return await asyncio.gather(
                self.rows.request_stop(self.project, known.answer.id, user),
                *(
                    self.rows.end(known.answer, worker, Ending(text=text, reason=reason))
                    for worker, text in known.texts.items()
                    for reason in (None, "it broke")
                ),
            )

        requested, *ends = self.run(race())
        if requested.is_new:
            known.stop_by = user
        messages = [each for each in ends if each is not None]
        assert len(messages) == (1 if known.ended_as is None else 0)
        for message in messages:
            self._ended(known, message)

    @rule(answer=ANY, worker=WORKERS)
    def end_with_what_is_stored(self, answer: int, worker: str) -> None:
        """As whoever takes over from a dead worker does."""
        known = self._any_answer(answer)
        message = self.run(self.rows.end(known.answer, worker, Ending(reason="it died")))
        assert (message is not None) is (known.ended_as is None and known.holder == worker)
        if message is not None:
            known.texts[worker] = known.stored
            self._ended(known, message)
            data = msgspec.json.decode(message.metadata)["response_data"]
            assert len(data.get("parts", [])) == known.parts

    def _ended(self, known: _Known, message: Message) -> None:
        data = msgspec.json.decode(message.metadata)["response_data"]
        known.ended_as = {
            "answer": "completed", "answer_stopped": "stopped", "answer_failed": "failed",
        }[data["type"]]  # fmt: skip
        known.ended_text = message.content.text
        assert data["replyTo"] == known.answer.reply_to
        assert data.get("stoppedBy") == (known.stop_by if known.ended_as == "stopped" else None)
        # What was stored is a beginning of what the message says, and that is what its writer had.
        assert known.ended_text.startswith(known.stored)
        assert known.ended_text == known.texts[known.holder]

    @invariant()
    def answers_are_right(self) -> None:
        messages = self.run(self.log.read(self.project))
        for known in self.known:
            ends = [each for each in messages if each.message_id == known.answer.id]
            announced = [each for each in self.published if each.message_id == known.answer.id]
            assert ends == announced
            assert len(ends) == (0 if known.ended_as is None else 1)
            state = self.run(self.rows.state(self.project, known.answer.id))
            assert state is not None
            assert state.status == (known.ended_as or "in_progress")
            assert state.text == (known.stored if known.ended_as is None else known.ended_text)
            assert state.index == (known.pieces - 1 if known.ended_as is None else -1)
            left = self.run(self.piece_rows.so_far([self.project]))
            is_listed = known.answer.id in [each.answer.id for each in left]
            assert is_listed is (known.ended_as is None)


def test_an_answer_ends_once_with_the_text_so_far(servers: _Servers) -> None:
    """§5: whatever workers and members do and time passes; without the lease, no writes."""
    _Machine.servers = servers
    run_state_machine_as_test(
        _Machine,
        settings=settings(
            max_examples=12,
            stateful_step_count=25,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )
