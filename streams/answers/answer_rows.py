"""The rows of the assistant's answers: created with the user's message, ended with a message.

Each answer has a worker with a lease in the database's time. When the lease runs out, another
worker takes the answer over and ends it with the text that was stored last. A request to stop is
stored in the row too, where the worker reads it with its next checkpoint. How an answer ends is
decided in `answer_ends.py`; it is written in `service/assistant/`.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence

from streams.answers.answer_ends import Ending, decide
from streams.answers.answer_values import Answer, AnswerState, Begun, Checkpoint, StopRequested
from streams.log.database import Database, Row, Session
from streams.log.log import Appended, Log, Unit
from streams.log.sql import statement
from streams.model.errors import Overloaded, StreamsError
from streams.model.events import Message, NewMessage, PreparedMessage, prepare

# With texts of at most 64 KiB a statement stays below a few MiB.
_CHECKPOINTS_AT_ONCE = 64


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

    async def state(self, project_id: str, answer_id: str) -> AnswerState | None:
        """Return how far an answer of the project is; None when there is no such answer."""
        try:
            key = uuid.UUID(answer_id)
        except ValueError:
            return None
        rows = await self._database.fetch(statement("answer_state"), project_id, key)
        return _state_of(rows[0]) if rows else None

    async def request_stop(
        self, project_id: str, answer_id: str, user_id: str
    ) -> StopRequested | None:
        """Store that a user wants the answer to stop; None when there is no such answer.

        The first request counts. An answer that has ended stays as it is.
        """
        try:
            key = uuid.UUID(answer_id)
        except ValueError:
            return None
        stored = await self._database.fetch(
            statement("answer_request_stop"), project_id, key, user_id
        )
        state = await self.state(project_id, answer_id)
        return None if state is None else StopRequested(state, bool(stored))

    async def checkpoint(
        self, checkpoints: Sequence[Checkpoint], worker_id: str, *, lease_s: float
    ) -> Mapping[str, str | None]:
        """Store texts and extend the leases.

        Returns the answers that this worker still owns, each with the user who asked it to stop.
        """
        owned: dict[str, str | None] = {}
        for start in range(0, max(1, len(checkpoints)), _CHECKPOINTS_AT_ONCE):
            some = checkpoints[start : start + _CHECKPOINTS_AT_ONCE]
            rows = await self._database.fetch(
                statement("answers_checkpoint"),
                [uuid.UUID(each.answer_id) for each in some],
                [each.text for each in some],
                [each.last_index for each in some],
                worker_id,
                lease_s,
            )
            owned.update((str(row["id"]), row["stop_requested_by"]) for row in rows)
        return owned

    async def take_over(
        self, worker_id: str, *, lease_s: float, stop_patience_s: float, limit: int = 20
    ) -> list[Answer]:
        """Take over at most `limit` answers whose lease ran out.

        Also those whose worker has not stopped them `stop_patience_s` after it was asked to.
        """
        rows = await self._database.fetch(
            statement("answers_take_over"), worker_id, lease_s, limit, stop_patience_s
        )
        return [_answer_of(row) for row in rows]

    async def end(self, answer: Answer, worker_id: str, ending: Ending) -> Message | None:
        """Append the answer's message; None when the answer has ended or another worker owns it.

        Whether it was asked to stop is read from the locked row: see `decide`.
        """
        key = uuid.UUID(answer.id)
        async with self._database.transaction() as session:
            held = await session.fetch(statement("answer_hold"), key, worker_id)
            if not held:
                return None
            end = decide(
                ending, reply_to=answer.message_id, stop_requested_by=held[0]["stop_requested_by"]
            )
            unit = Unit(answer.project_id, (_prepared(answer, ending.text, end.response_data),))
            committed = (await _append(self._log, unit, session)).message
            await session.execute(statement("answer_end"), key, committed.seq, end.status)
        self._committed(committed)
        return committed


def _prepared(answer: Answer, text: str, response_data: dict[str, object]) -> PreparedMessage:
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
    # The text so far: none when the answer was stopped or failed before its first piece.
    return prepare(message, may_be_empty=True)


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
        text=row["text"],
    )


def _state_of(row: Row) -> AnswerState:
    return AnswerState(
        id=str(row["id"]),
        reply_to=str(row["message_id"]),
        status=row["status"],
        text=row["text"],
        last_index=row["last_index"],
    )


async def _append(log: Log, unit: Unit, session: Session) -> Appended:
    (outcome,) = await log.append([unit], session)
    if isinstance(outcome, StreamsError):
        # Rolls the transaction back.
        raise outcome
    return outcome[0]
