"""Rows of answers of assistants outside: begun for a message of the log, and their pieces.

Each step is one transaction, so any process can take the next one. The lease is the worker's own:
every step renews it, and when it runs out a process takes the answer over and ends it
(`answer_leases.py`). What users of the library call is in `outside.py`, ending in `answer_rows.py`,
and what a request may hold in `outside_pieces.py`.
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
from streams.answers.answer_rows import QUESTIONS, create
from streams.answers.answer_values import Answer, BegunReply, OutsideBounds, Received
from streams.answers.outside_pieces import Sizes, check_counts, grown
from streams.answers.pieces import Piece, entries_of, piece_of
from streams.answers.row_values import answer_of, key_of, status_of
from streams.log.database import Database, Row, Session
from streams.log.sql import statement
from streams.model.errors import Contended, IdempotencyMismatch, InvalidInput

# Name the spaces of advisory locks that are keyed by projects and by workers.
_PROJECT_LOCKS = 0x5E95_0002
_WORKER_LOCKS = 0x5E95_0003

# Of the answers of a project, one in so many may be one that a member asked for again: members
# must not be able to take all places of a worker.
_SHARE_AGAIN = 4


def outside_worker(user_id: str) -> str:
    """Return the id under which an assistant outside holds the leases of its answers."""
    return f"outside:{user_id}"


class OutsideRows:
    """Begins answers to messages of the log and takes their pieces.

    Every method may raise `LogUnavailable`; the outcome is then unknown, and a repeat is harmless.
    """

    def __init__(self, database: Database, bounds: OutsideBounds) -> None:
        self._database = database
        self.bounds = bounds

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
            if known is None:
                rows = await session.fetch(statement("answer_question"), project_id, key, QUESTIONS)
                if not rows:
                    raise AnswerNotFound("no such message to answer")
                answer = _new(project_id, user_id, rows[0]["seq"], str(key))
                return await self._create(session, answer, client_msg_id)
        if known.answer.reply_to != str(key) or not known.answer.is_outside:
            raise IdempotencyMismatch(client_msg_id or "")
        return known

    async def begin_again(
        self, before: Answer, user_id: str, *, client_msg_id: str | None
    ) -> BegunReply:
        """Begin another answer of the same assistant outside, which a member asked for.

        A repeat of the `client_msg_id` by this member returns the first.

        Raises:
            AnswerInProgress: the answer before has not ended.
            IdempotencyMismatch: the `client_msg_id` began an answer after another one.
            TooManyAnswers: nothing was written.
        """
        if before.end_seq is None:
            raise AnswerInProgress("the answer is still being written")
        # The answer is the worker's, the client_msg_id a member's, as no printable one can be.
        asked = None if client_msg_id is None else f"{user_id}\n{client_msg_id}"
        async with self._database.transaction() as session:
            await _serialize(session, before.project_id, before.user_id)
            known = await _known(session, before.project_id, before.user_id, asked)
            if known is None:
                answer = _new(
                    before.project_id,
                    before.user_id,
                    before.question_seq,
                    before.reply_to,
                    regenerates=before.id,
                )
                return await self._create(session, answer, asked)
        if known.answer.regenerates != before.id:
            raise IdempotencyMismatch(client_msg_id or "")
        return known

    async def _create(
        self, session: Session, answer: Answer, client_msg_id: str | None
    ) -> BegunReply:
        bounds = self.bounds
        most_again = max(1, bounds.per_project // _SHARE_AGAIN)
        (room,) = await session.fetch(
            statement("answer_room"),
            answer.project_id,
            answer.user_id,
            bounds.per_project,
            bounds.per_worker,
            most_again,
        )
        if bounds.per_project and answer.regenerates is not None and room["again"] >= most_again:
            raise TooManyAnswers("too many answers are written again in the project")
        if 0 < bounds.per_project <= room["of_project"]:
            raise TooManyAnswers("too many answers are under way in the project")
        if 0 < bounds.per_worker <= room["of_worker"]:
            raise TooManyAnswers("too many answers of the worker are under way")
        rows = await create(session, answer, lease_s=bounds.lease_s, client_msg_id=client_msg_id)
        if not rows:
            # The same user began one that is not written outside under this id, just now.
            raise Contended("the client_msg_id was used at the same time")
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

        An answer that has ended, or was taken over to be ended, takes none; its status says so.

        Raises:
            AnswerNotFound, AnswerHeld, IndexGap, InvalidInput, PayloadTooLarge: nothing written.
        """
        if index < 0:
            raise InvalidInput("index", "must not be negative")
        async with self._database.transaction() as session:
            row = await _owned(session, "answer_receive_hold", project_id, answer_id, user_id)
            before = _received(row)
            if before.status != "in_progress":
                return before
            if index > before.next_index:
                raise IndexGap(before.next_index)
            first = before.next_index - index
            sizes = await self._sizes(session, row, pieces, first)
            stored = entries_of(piece for piece in pieces[first:] if piece != _NOTHING)
            next_index = max(before.next_index, index + len(pieces))
            check_counts(next_index, row["last_index"] + 1 + len(stored))
            await session.execute(
                statement("answer_receive"),
                row["id"],
                [row["last_index"] + 1 + number for number in range(len(stored))],
                [each.kind for each in stored],
                [each.body for each in stored],
                next_index,
                sizes.text_bytes,
                sizes.parts_bytes,
                self.bounds.lease_s,
            )
        return Received(
            before.answer,
            "in_progress",
            next_index,
            before.is_stop_requested,
            row["last_index"] + 1,
            tuple(stored),
        )

    async def _sizes(
        self, session: Session, row: Row, pieces: Sequence[Piece], first: int
    ) -> Sizes:
        """Return how large the answer will be. Raises `PayloadTooLarge`."""
        last: Piece | None = None
        if any(each.kind != "text" for each in pieces[first:]):
            rows = await session.fetch(statement("answer_last_piece"), row["id"])
            last = piece_of(rows[0]["kind"], rows[0]["body"]) if rows else None
        before = Sizes(row["text_bytes"], row["parts_bytes"])
        return grown(before, last, pieces, first, max_text_bytes=self.bounds.max_text_bytes)

    async def progress(self, project_id: str, answer_id: str, user_id: str) -> Received:
        """Return how far an answer of this assistant outside is.

        Raises `AnswerNotFound`, `AnswerHeld`.
        """
        return _received(await _owned(self._database, "answer_get", project_id, answer_id, user_id))


_NOTHING = Piece("text")


def _new(
    project_id: str,
    user_id: str,
    question_seq: int,
    reply_to: str,
    *,
    regenerates: str | None = None,
) -> Answer:
    return Answer(
        id=str(uuid.uuid4()),
        project_id=project_id,
        user_id=user_id,
        question_seq=question_seq,
        reply_to=reply_to,
        worker_id=outside_worker(user_id),
        is_outside=True,
        regenerates=regenerates,
    )


async def _owned(
    session: Session | Database, name: str, project_id: str, answer_id: str, user_id: str
) -> Row:
    key = key_of(answer_id)
    rows = [] if key is None else await session.fetch(statement(name), project_id, key)
    if not rows:
        raise AnswerNotFound("no such answer")
    if not rows[0]["is_outside"] or rows[0]["user_id"] != user_id:
        raise AnswerHeld("another writes this answer")
    return rows[0]


def _received(row: Row) -> Received:
    answer = answer_of(row)
    status = status_of(row)
    is_asked = status == "in_progress" and answer.stop_requested_by is not None
    if status == "in_progress" and answer.worker_id != outside_worker(answer.user_id):
        # Taken over: a process is about to end it.
        status = "stopped" if is_asked else "failed"
    return Received(answer, status, row["received"], is_asked or status == "stopped")


async def _serialize(session: Session, project_id: str, user_id: str) -> None:
    """Wait for others that begin in the project, or of this worker: each must count the others."""
    await session.execute(statement("answer_lock"), _PROJECT_LOCKS, project_id)
    await session.execute(statement("answer_lock"), _WORKER_LOCKS, user_id)


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
    return BegunReply(answer_of(rows[0]), status_of(rows[0]), rows[0]["received"], False)
