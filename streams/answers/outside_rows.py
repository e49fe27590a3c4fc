"""Answers of assistants outside: each step is one transaction, so any process can take the next.

The lease is the worker's own: every step renews it, and when it runs out a process takes the answer
over and ends it as failed (`answer_keeper.py`).
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from streams.answers.answer_errors import (
    AnswerHeld,
    AnswerInProgress,
    AnswerNotFound,
    IndexGap,
    TooManyAnswers,
)
from streams.answers.answer_rows import create
from streams.answers.answer_values import (
    Answer,
    AnswerStatus,
    BegunReply,
    OutsideBounds,
    Received,
)
from streams.answers.pieces import Piece, entries_of, joined, piece_of
from streams.answers.row_values import answer_of, key_of
from streams.log.database import Database, Row, Session
from streams.log.sql import statement
from streams.model.errors import IdempotencyMismatch, PayloadTooLarge
from streams.model.events import MAX_PARTS_BYTES

# Answered are messages among so many of the newest: there is no index on their ids.
_QUESTIONS = 10_000
# Of one answer: reading them all must stay cheap.
MAX_PIECES = 20_000


def outside_worker(user_id: str) -> str:
    """Return the id under which an assistant outside holds the leases of its answers."""
    return f"outside:{user_id}"


class OutsideRows:
    """Begins answers to messages of the log and takes their pieces.

    Every method may raise `LogUnavailable`; the outcome is then unknown, and a repeat is harmless.
    """

    def __init__(self, database: Database, bounds: OutsideBounds) -> None:
        self._database = database
        self._bounds = bounds

    async def begin(
        self, project_id: str, reply_to: str, user_id: str, *, client_msg_id: str | None
    ) -> BegunReply:
        """Begin an answer to a message; a repeat of the `client_msg_id` returns the first.

        Raises:
            AnswerNotFound: there is no such message among the newest.
            IdempotencyMismatch: the `client_msg_id` began an answer to another message.
            TooManyAnswers: nothing was written.
        """
        key = key_of(reply_to)
        if key is None:
            raise AnswerNotFound("no such message to answer")
        async with self._database.transaction() as session:
            await _serialize(session, project_id, user_id)
            known = await _known(session, project_id, user_id, client_msg_id)
            if known is not None:
                if known.answer.reply_to != str(key) or known.answer.regenerates is not None:
                    raise IdempotencyMismatch(client_msg_id or "")
                return known
            rows = await session.fetch(statement("answer_question"), project_id, key, _QUESTIONS)
            if not rows:
                raise AnswerNotFound("no such message to answer")
            answer = Answer(
                id=str(uuid.uuid4()),
                project_id=project_id,
                user_id=user_id,
                question_seq=rows[0]["seq"],
                reply_to=str(key),
                worker_id=outside_worker(user_id),
                is_outside=True,
            )
            return await self._create(session, answer, client_msg_id)

    async def begin_again(self, before: Answer, *, client_msg_id: str | None) -> BegunReply:
        """Begin another answer of the same assistant outside to the same message.

        Raises:
            AnswerInProgress: the answer before has not ended.
            IdempotencyMismatch: the `client_msg_id` began an answer after another one.
            TooManyAnswers: nothing was written.
        """
        if before.end_seq is None:
            raise AnswerInProgress("the answer is still being written")
        async with self._database.transaction() as session:
            await _serialize(session, before.project_id, before.user_id)
            known = await _known(session, before.project_id, before.user_id, client_msg_id)
            if known is not None:
                if known.answer.regenerates != before.id:
                    raise IdempotencyMismatch(client_msg_id or "")
                return known
            answer = Answer(
                id=str(uuid.uuid4()),
                project_id=before.project_id,
                user_id=before.user_id,
                question_seq=before.question_seq,
                reply_to=before.reply_to,
                worker_id=outside_worker(before.user_id),
                is_outside=True,
                regenerates=before.id,
            )
            return await self._create(session, answer, client_msg_id)

    async def _create(
        self, session: Session, answer: Answer, client_msg_id: str | None
    ) -> BegunReply:
        bounds = self._bounds
        (room,) = await session.fetch(
            statement("answer_room"),
            answer.project_id,
            answer.user_id,
            bounds.per_project,
            bounds.per_worker,
        )
        if 0 < bounds.per_project <= room["of_project"]:
            raise TooManyAnswers("too many answers are under way in the project")
        if 0 < bounds.per_worker <= room["of_user"]:
            raise TooManyAnswers("too many answers are under way")
        rows = await create(session, answer, lease_s=bounds.lease_s, client_msg_id=client_msg_id)
        return BegunReply(answer_of(rows[0]), "in_progress", 0, True)

    async def receive(
        self,
        project_id: str,
        answer_id: str,
        user_id: str,
        index: int,
        pieces: Sequence[Piece],
    ) -> Received:
        """Store the pieces from `index` on that were not received before, and renew the lease.

        An answer that has ended takes none; its status says so.

        Raises:
            AnswerNotFound, AnswerHeld, IndexGap, PayloadTooLarge: nothing was written.
        """
        key = key_of(answer_id)
        if key is None:
            raise AnswerNotFound("no such answer")
        async with self._database.transaction() as session:
            row = await _held(session, project_id, key, user_id)
            answer = answer_of(row)
            received = row["received"]
            if row["end_seq"] is not None or answer.worker_id != outside_worker(user_id):
                return Received(
                    answer, _status(row), received, answer.stop_requested_by is not None
                )
            if index > received:
                raise IndexGap(received)
            new = pieces[received - index :]
            stored = await self._store(session, row, key, new)
        return Received(
            answer,
            "in_progress",
            received + len(new),
            answer.stop_requested_by is not None,
            row["last_index"] + 1,
            tuple(stored),
        )

    async def _store(
        self, session: Session, row: Row, key: uuid.UUID, new: Sequence[Piece]
    ) -> list[Piece]:
        """Store pieces, adjacent ones joined; return them as they were stored."""
        text_bytes = row["text_bytes"] + sum(
            len(each.delta.encode()) for each in new if each.kind == "text"
        )
        if text_bytes > self._bounds.max_text_bytes:
            raise PayloadTooLarge("parts", self._bounds.max_text_bytes)
        before = [] if row["last_kind"] is None else [piece_of(row["last_kind"], row["last_body"])]
        parts_bytes = row["parts_bytes"] + _parts_bytes([*before, *new]) - _parts_bytes(before)
        if parts_bytes > MAX_PARTS_BYTES:
            raise PayloadTooLarge("parts", MAX_PARTS_BYTES)
        stored = entries_of(new)
        first = row["last_index"] + 1
        if first + len(stored) > MAX_PIECES:
            raise PayloadTooLarge("parts", MAX_PIECES)
        await session.execute(
            statement("answer_receive"),
            key,
            list(range(first, first + len(stored))),
            [each.kind for each in stored],
            [each.body for each in stored],
            row["received"] + len(new),
            text_bytes,
            parts_bytes,
            first + len(stored) - 1,
            self._bounds.lease_s,
        )
        return stored

    async def owned(self, project_id: str, answer_id: str, user_id: str) -> Answer:
        """Return an answer of an assistant outside. Raises `AnswerNotFound`, `AnswerHeld`."""
        key = key_of(answer_id)
        if key is None:
            raise AnswerNotFound("no such answer")
        async with self._database.transaction() as session:
            return answer_of(await _held(session, project_id, key, user_id))


def _parts_bytes(pieces: Sequence[Piece]) -> int:
    """Return the size of the parts in pieces as JSON in a list, as `AnswerText` counts it."""
    return sum(len(each.data) + 64 for each in joined(pieces) if each.kind != "text")


async def _held(session: Session, project_id: str, key: uuid.UUID, user_id: str) -> Row:
    rows = await session.fetch(statement("answer_receive_hold"), project_id, key)
    if not rows:
        raise AnswerNotFound("no such answer")
    if not rows[0]["is_outside"] or rows[0]["user_id"] != user_id:
        raise AnswerHeld("another writes this answer")
    return rows[0]


async def _serialize(session: Session, project_id: str, user_id: str) -> None:
    """Wait for others that begin in the project, or of this worker: each must count the others."""
    for name in (f"project:{project_id}", f"worker:{user_id}"):
        await session.execute(statement("answer_lock"), name)


async def _known(
    session: Session, project_id: str, user_id: str, client_msg_id: str | None
) -> BegunReply | None:
    if client_msg_id is None:
        return None
    rows = await session.fetch(
        statement("answer_of_client_msg_id"), project_id, user_id, client_msg_id
    )
    if not rows:
        return None
    return BegunReply(answer_of(rows[0]), _status(rows[0]), rows[0]["received"], False)


def _status(row: Row) -> AnswerStatus:
    status: AnswerStatus = row["end_status"] or "failed"
    return "in_progress" if row["end_seq"] is None else status
