"""The rows of the assistant's answers: created with the user's message, ended with a message.

Each answer has a worker with a lease in the database's time. When the lease runs out, another
worker takes the answer over and ends it. The text of an answer and the streaming of its pieces
are in `service/assistant/`.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence

import msgspec

from streams.log.database import Database, Row, Session
from streams.log.log import Appended, Log, Unit
from streams.log.sql import statement
from streams.model.errors import Overloaded, StreamsError
from streams.model.events import Message, NewMessage, prepare


class Answer(msgspec.Struct, frozen=True):
    """An answer's row. `id` and `end_seq` are the id and the seq of the message that ends it."""

    id: str
    project_id: str
    user_id: str
    message_seq: int
    message_id: str
    worker_id: str
    end_seq: int | None


class Begun(msgspec.Struct, frozen=True):
    """A user's message and its answer; `is_ours` when this call created the answer."""

    appended: Appended
    answer: Answer
    is_ours: bool


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
                rows = await _create(session, committed, worker_id, lease_s)
        if not appended.duplicate:
            self._committed(committed)
        return Begun(appended, _answer_of(rows[0]), is_ours)

    async def get(self, project_id: str, message_seq: int) -> Answer | None:
        """Return the answer to a message; None when there is none."""
        rows = await self._database.fetch(statement("answer_of_message"), project_id, message_seq)
        return _answer_of(rows[0]) if rows else None

    async def renew(self, answer_ids: Sequence[str], worker_id: str, *, lease_s: float) -> set[str]:
        """Extend the leases; return the ids of the answers that this worker still owns."""
        rows = await self._database.fetch(
            statement("answers_renew"),
            [uuid.UUID(answer_id) for answer_id in answer_ids],
            worker_id,
            lease_s,
        )
        return {str(row["id"]) for row in rows}

    async def take_over(self, worker_id: str, *, lease_s: float, limit: int = 20) -> list[Answer]:
        """Take over at most `limit` answers whose lease ran out."""
        rows = await self._database.fetch(statement("answers_take_over"), worker_id, lease_s, limit)
        return [_answer_of(row) for row in rows]

    async def end(
        self, answer: Answer, worker_id: str, text: str, response_data: dict[str, object]
    ) -> Message | None:
        """Append the answer's message; None when the answer has ended or another worker owns it."""
        message = NewMessage(
            user_id=answer.user_id,
            text=text,
            type="assistant",
            mode="plan",
            actor_type="assistant",
            parent_id=answer.message_id,
            metadata={"response_data": response_data},
            message_id=answer.id,
        )
        unit = Unit(answer.project_id, (prepare(message),))
        key = uuid.UUID(answer.id)
        async with self._database.transaction() as session:
            if not await session.fetch(statement("answer_hold"), key, worker_id):
                return None
            committed = (await _append(self._log, unit, session)).message
            await session.execute(statement("answer_end"), key, committed.seq)
        self._committed(committed)
        return committed


async def _create(
    session: Session, message: Message, worker_id: str, lease_s: float
) -> Sequence[Row]:
    return await session.fetch(
        statement("answer_create"),
        uuid.uuid4(),
        message.project_id,
        message.user_id,
        message.seq,
        uuid.UUID(message.message_id),
        worker_id,
        lease_s,
    )


def _answer_of(row: Row) -> Answer:
    return Answer(
        id=str(row["id"]),
        project_id=row["project_id"],
        user_id=row["user_id"],
        message_seq=row["message_seq"],
        message_id=str(row["message_id"]),
        worker_id=row["worker_id"],
        end_seq=row["end_seq"],
    )


async def _append(log: Log, unit: Unit, session: Session) -> Appended:
    (outcome,) = await log.append([unit], session)
    if isinstance(outcome, StreamsError):
        # Rolls the transaction back.
        raise outcome
    return outcome[0]
