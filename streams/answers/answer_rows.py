"""The rows of the assistant's answers: created for a message, ended with a message.

Each answer has a worker with a lease in the database's time. When the lease runs out, another
worker takes the answer over and ends it with what was stored. A request to stop is stored in the
row too, where the worker reads it. How an answer ends is decided in `answer_ends.py`; its pieces
are stored in `piece_rows.py`, and those of assistants outside in `outside_rows.py`.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence

from streams.answers.answer_ends import Ending, decide, message_of
from streams.answers.answer_errors import AnswerNotFound
from streams.answers.answer_values import Answer, AnswerState, Begun, BegunReply, StopRequested
from streams.answers.row_values import answer_of, key_of, state_of, status_of, text_of
from streams.log.database import Database, Row, Session
from streams.log.log import Appended, Log, Unit
from streams.log.sql import statement
from streams.model.errors import IdempotencyMismatch, Overloaded, StreamsError
from streams.model.events import Message, NewMessage, prepare

QUESTIONS = 10_000
"""Answered are messages among so many of the newest: there is no index on their ids."""


class AnswerRows:
    """The table `answers`. Every method may raise `LogUnavailable`.

    `committed` is called with each message that is appended here, to publish it.
    """

    def __init__(self, database: Database, log: Log, committed: Callable[[Message], None]) -> None:
        self._database = database
        self._log = log
        self._committed = committed

    async def begin(
        self,
        project_id: str,
        message: NewMessage,
        worker_id: str,
        *,
        lease_s: float,
        is_streamed: bool = True,
        may_begin: bool = True,
    ) -> Begun:
        """Append a user's message and create its answer, in one transaction.

        A repeat of a `client_msg_id` adds nothing and returns the first result. With `may_begin`
        false, only such a repeat succeeds.

        Raises:
            InvalidInput, PayloadTooLarge, IdempotencyMismatch, ProjectNotFound: nothing written.
            Overloaded: `may_begin` is false and there is no answer yet; nothing written.
        """
        unit = Unit(project_id, (prepare(message),))
        async with self._database.transaction() as session:
            appended = await _append(self._log, unit, session)
            committed = appended.message
            rows: Sequence[Row] = ()
            if appended.duplicate:
                rows = await session.fetch(
                    statement("answer_of_message"), project_id, committed.seq
                )
            is_ours = not rows
            if is_ours and not may_begin:
                # Rolls the transaction back.
                raise Overloaded("too many answers are under way")
            if is_ours:
                answer = Answer(
                    id=str(uuid.uuid4()),
                    project_id=project_id,
                    user_id=committed.user_id,
                    question_seq=committed.seq,
                    reply_to=committed.message_id,
                    worker_id=worker_id,
                    is_streamed=is_streamed,
                )
                rows = await create(session, answer, lease_s=lease_s, is_first=True)
        if not appended.duplicate:
            self._committed(committed)
        return Begun(appended, answer_of(rows[0]), is_ours)

    async def begin_reply(
        self, answer: Answer, *, lease_s: float, client_msg_id: str | None = None
    ) -> BegunReply:
        """Create an answer to a message; a repeat of a `client_msg_id` returns the first.

        Raises:
            IdempotencyMismatch: the `client_msg_id` began an answer to another message.
        """
        rows = await create(self._database, answer, lease_s=lease_s, client_msg_id=client_msg_id)
        if rows:
            return BegunReply(answer_of(rows[0]), "in_progress", 0, True)
        assert client_msg_id is not None
        (row,) = await self._database.fetch(
            statement("answer_of_client_msg_id"), answer.project_id, answer.user_id, client_msg_id
        )
        known = answer_of(row)
        if (known.reply_to, known.regenerates) != (answer.reply_to, answer.regenerates):
            raise IdempotencyMismatch(client_msg_id)
        return BegunReply(known, status_of(row), row["received"], False)

    async def question_seq(self, project_id: str, message_id: str) -> int:
        """Return the seq of a message of the project, among its newest 10,000.

        Raises `AnswerNotFound`.
        """
        key = key_of(message_id)
        rows: Sequence[Row] = ()
        if key is not None:
            rows = await self._database.fetch(
                statement("answer_question"), project_id, key, QUESTIONS
            )
        if not rows:
            raise AnswerNotFound("no such message to answer")
        seq: int = rows[0]["seq"]
        return seq

    async def get(self, project_id: str, message_seq: int) -> Answer | None:
        """Return the answer that began with a message; None when there is none."""
        rows = await self._database.fetch(statement("answer_of_message"), project_id, message_seq)
        return answer_of(rows[0]) if rows else None

    async def state(self, project_id: str, answer_id: str) -> AnswerState | None:
        """Return how far an answer of the project is; None when there is no such answer."""
        key = key_of(answer_id)
        if key is None:
            return None
        rows = await self._database.fetch(statement("answer_state"), project_id, key)
        return state_of(rows[0]) if rows else None

    async def request_stop(
        self, project_id: str, answer_id: str, user_id: str
    ) -> StopRequested | None:
        """Store that a user wants the answer to stop; None when there is no such answer.

        The first request counts. An answer that has ended stays as it is.
        """
        key = key_of(answer_id)
        if key is None:
            return None
        stored = await self._database.fetch(
            statement("answer_request_stop"), project_id, key, user_id
        )
        state = await self.state(project_id, answer_id)
        return None if state is None else StopRequested(state.answer, state.status, bool(stored))

    async def renew(
        self, answer_ids: Sequence[str], worker_id: str, *, lease_s: float
    ) -> Mapping[str, str | None]:
        """Extend the leases of answers.

        Returns those that this worker still owns, each with the user who asked it to stop.
        """
        keys = [uuid.UUID(each) for each in answer_ids]
        rows = await self._database.fetch(statement("answers_renew"), keys, worker_id, lease_s)
        return {str(row["id"]): row["stop_requested_by"] for row in rows}

    async def take_over(
        self, worker_id: str, *, lease_s: float, stop_patience_s: float, limit: int = 20
    ) -> list[Answer]:
        """Take over at most `limit` answers whose lease ran out.

        Also those whose worker has not stopped them `stop_patience_s` after it was asked to.
        """
        rows = await self._database.fetch(
            statement("answers_take_over"), worker_id, lease_s, limit, stop_patience_s
        )
        return [answer_of(row) for row in rows]

    async def end(self, answer: Answer, worker_id: str, ending: Ending) -> Message | None:
        """Append the answer's message; None when the answer has ended or another worker owns it.

        Whether it was asked to stop is read from the locked row: see `decide`.

        Raises:
            InvalidInput, PayloadTooLarge: it cannot be a message; nothing written.
        """
        key = uuid.UUID(answer.id)
        async with self._database.transaction() as session:
            held = await session.fetch(statement("answer_hold"), key, worker_id)
            if not held:
                return None
            answer = answer_of(held[0])
            end = decide(
                ending, reply_to=answer.reply_to, stop_requested_by=answer.stop_requested_by
            )
            rows = await session.fetch(statement("answer_pieces_read"), key)
            stored = text_of([row["kind"] for row in rows], [row["body"] for row in rows])
            unit = Unit(answer.project_id, (message_of(answer, ending, end, stored),))
            committed = (await _append(self._log, unit, session)).message
            await session.execute(statement("answer_end"), key, committed.seq, end.status)
        self._committed(committed)
        return committed


async def create(
    session: Session | Database,
    answer: Answer,
    *,
    lease_s: float,
    is_first: bool = False,
    client_msg_id: str | None = None,
) -> Sequence[Row]:
    """Insert an answer's row; no row when its message, or the client_msg_id, has an answer.

    `is_first`: the answer begins with the append of its message.
    """
    return await session.fetch(
        statement("answer_create"),
        uuid.UUID(answer.id),
        answer.project_id,
        answer.user_id,
        answer.question_seq if is_first else None,
        answer.question_seq,
        uuid.UUID(answer.reply_to),
        answer.worker_id,
        lease_s,
        answer.is_streamed,
        answer.is_outside,
        client_msg_id,
        None if answer.regenerates is None else uuid.UUID(answer.regenerates),
    )


async def _append(log: Log, unit: Unit, session: Session) -> Appended:
    (outcome,) = await log.append([unit], session)
    if isinstance(outcome, StreamsError):
        # Rolls the transaction back.
        raise outcome
    return outcome[0]
