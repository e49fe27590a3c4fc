"""Answers of assistants outside, each step on its own: begin, pieces, end; stop and begin again.

begun = await log.outside_answers.begin("p1", message_id, "bot")
await log.outside_answers.receive("p1", begun.answer.id, "bot", 0, [text_piece("Hello")])
await log.outside_answers.end("p1", begun.answer.id, "bot", "completed")

A step is committed, then published. The statements are behind `outside_rows.py` and
`answer_rows.py`; who may take a step, and how often, is the service's matter.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Mapping, Sequence

from streams.answers.answer_ends import Ending, EndStatus
from streams.answers.answer_errors import AnswerEnded
from streams.answers.answer_rows import AnswerRows
from streams.answers.answer_values import Answer, AnswerStatus, BegunReply, Received
from streams.answers.outside_rows import OutsideRows, outside_worker
from streams.answers.piece_publisher import PiecePublisher
from streams.answers.pieces import Piece
from streams.model.errors import LogUnavailable, PayloadTooLarge, Unavailable
from streams.model.events import (
    MAX_METADATA_BYTES,
    check_opaque_id,
    check_text,
    encode_metadata,
)
from streams.model.json_depth import check_depth
from streams.runtime.running_steps import RunningSteps

# How long pieces may take into the stream until their sender is answered all the same.
_PUBLISH_S = 0.25


class OutsideAnswers:
    """The answers that assistants outside write.

    Every method may raise `LogUnavailable`: the outcome is then unknown, and a repeat is harmless.
    A step that has begun is completed even when its caller is cancelled.
    """

    def __init__(self, outside: OutsideRows, rows: AnswerRows, publisher: PiecePublisher) -> None:
        self._outside = outside
        self._rows = rows
        self._publisher = publisher
        self._steps = RunningSteps()

    async def begin(
        self, project_id: str, reply_to: str, user_id: str, *, client_msg_id: str | None = None
    ) -> BegunReply:
        """Begin an answer to a message; a repeat of the `client_msg_id` returns the first.

        Raises:
            AnswerNotFound: there is no such message among the newest 10,000 of the project.
            IdempotencyMismatch: the `client_msg_id` began an answer to another message.
            TooManyAnswers: too many are under way in the project, or of the worker.
            InvalidInput: the `client_msg_id` cannot be one.
        """
        if client_msg_id is not None:
            check_opaque_id(client_msg_id, "client_msg_id")
        beginning = self._outside.begin(project_id, reply_to, user_id, client_msg_id=client_msg_id)
        return await self._steps.run(self._begin(beginning))

    async def begin_again(
        self, before: Answer, user_id: str, *, client_msg_id: str | None = None
    ) -> BegunReply:
        """Begin another answer to the same message, for the same worker, as a member asked.

        The worker learns of it by `answer.state`. A repeat of the `client_msg_id` by this member
        returns the first.

        Raises:
            AnswerInProgress: the answer before has not ended.
            IdempotencyMismatch: the `client_msg_id` began an answer after another one.
            TooManyAnswers: too many are under way in the project, or of the worker.
            InvalidInput: the `client_msg_id` cannot be one.
        """
        if client_msg_id is not None:
            check_opaque_id(client_msg_id, "client_msg_id")
        beginning = self._outside.begin_again(before, user_id, client_msg_id=client_msg_id)
        return await self._steps.run(self._begin(beginning))

    async def _begin(self, beginning: Coroutine[None, None, BegunReply]) -> BegunReply:
        begun = await beginning
        if begun.is_new:
            self._publisher.announce(begun.answer)
        return begun

    async def receive(
        self,
        project_id: str,
        answer_id: str,
        user_id: str,
        index: int,
        pieces: Sequence[Piece],
    ) -> Received:
        """Store pieces, of which the first has the index `index`, and publish the new ones.

        Known indexes are dropped; without pieces the lease is renewed alone. Ordering: a worker
        that waits for each result may take its next step in another process. `is_stop_requested`
        when a member stopped the answer: nothing more is taken then.

        Raises:
            IndexGap: `index` is above the next one.
            AnswerEnded: the answer has ended, or was given up after its lease ran out.
            AnswerNotFound, AnswerHeld, InvalidInput, PayloadTooLarge: nothing was written.
        """
        received = await self._steps.run(
            self._receive(project_id, answer_id, user_id, index, pieces)
        )
        if received.status != "in_progress" and not received.is_stop_requested:
            raise AnswerEnded("the answer has ended")
        return received

    async def _receive(
        self, project_id: str, answer_id: str, user_id: str, index: int, pieces: Sequence[Piece]
    ) -> Received:
        received = await self._outside.receive(project_id, answer_id, user_id, index, pieces)
        if received.pieces:
            self._publisher.submit(received.answer, received.first_index, received.pieces)
            # Another process may get the next pieces: they must not be published before these.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_PUBLISH_S):
                    await self._publisher.published(received.answer.id)
        return received

    async def end(
        self,
        project_id: str,
        answer_id: str,
        user_id: str,
        status: EndStatus,
        *,
        text: str | None = None,
        metadata: Mapping[str, object] | None = None,
        reason: str | None = None,
    ) -> Received:
        """End an answer and return how it ended, which a member may have decided before.

        `text` replaces what was written, `reason` says why it failed.

        Raises:
            AnswerNotFound, AnswerHeld, InvalidInput, PayloadTooLarge: nothing was written.
            Unavailable: another process is about to end it.
        """
        if text:
            check_text(text, "text")
            if len(text.encode()) > self._outside.bounds.max_text_bytes:
                raise PayloadTooLarge("text", self._outside.bounds.max_text_bytes)
        if metadata:
            check_depth(encode_metadata(metadata, MAX_METADATA_BYTES), "metadata")
        ending = Ending(
            text=text,
            reason=None if status == "completed" else reason or "the assistant gave no reason",
            stopped_by=user_id if status == "stopped" else None,
            metadata=metadata,
        )
        return await self._steps.run(self._end(project_id, answer_id, user_id, ending))

    async def _end(self, project_id: str, answer_id: str, user_id: str, ending: Ending) -> Received:
        progress = await self._outside.progress(project_id, answer_id, user_id)
        if progress.answer.end_seq is None:
            await self._rows.end(progress.answer, outside_worker(user_id), ending)
            progress = await self._outside.progress(project_id, answer_id, user_id)
        if progress.answer.end_seq is None:
            raise Unavailable("another process is about to end the answer")
        return progress

    async def stop(self, answer: Answer) -> AnswerStatus:
        """End an answer that was asked to stop (`Answers.stop`), with what was written.

        It is still in progress when another process is about to end it, or must do it later.
        """
        return await self._steps.run(self._stop(answer))

    async def _stop(self, answer: Answer) -> AnswerStatus:
        try:
            await self._rows.end(answer, outside_worker(answer.user_id), Ending(reason="stopped"))
            progress = await self._outside.progress(answer.project_id, answer.id, answer.user_id)
        except LogUnavailable:
            # The request is stored: without Postgres now, a process ends the answer later.
            return "in_progress"
        return "in_progress" if progress.answer.end_seq is None else progress.status

    async def drained(self) -> None:
        """Wait until the steps in progress are completed."""
        await self._steps.drained()
