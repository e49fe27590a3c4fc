"""Answers for users of the library: begun for a message, written in pieces, ended as a message.

async with log.answer("p1", reply_to=message.message_id, user_id="bot") as answer:
    async for text in model:
        await answer.write(text)

Here is which answers this process writes. The statements are behind `answer_rows.py`; assistants
that write over HTTP are in `outside.py`.
"""

from __future__ import annotations

import asyncio
import logging
import uuid

from streams.answers.answer_ends import Ending
from streams.answers.answer_errors import AnswerInProgress
from streams.answers.answer_leases import AnswerLeases
from streams.answers.answer_rows import AnswerRows
from streams.answers.answer_stops import AnswerStops
from streams.answers.answer_values import Answer, AnswerState, Begun, BegunReply, StopRequested
from streams.answers.open_answer import OpenAnswer
from streams.answers.piece_publisher import PiecePublisher
from streams.answers.piece_rows import PieceRows
from streams.answers.piece_store import PieceStore
from streams.model.errors import StreamsError, Unavailable
from streams.model.events import MAX_TEXT_BYTES, Message, NewMessage
from streams.runtime.backoff import Backoff
from streams.runtime.owned_tasks import end
from streams.tail.registry import TailRegistry

_log = logging.getLogger(__name__)

_RETRY_FIRST_S = 0.25
_RETRY_MOST_S = 1.0
_FLUSH_TIMEOUT_S = 1.5


class Answers:
    """The answers of all projects, and those that this process writes.

    Every method may raise `LogUnavailable`: the outcome is then unknown, and a repeat is harmless.
    """

    def __init__(
        self,
        rows: AnswerRows,
        pieces: PieceRows,
        publisher: PiecePublisher,
        tails: TailRegistry,
        process_id: str,
        *,
        lease_s: float,
    ) -> None:
        self.rows = rows
        self._publisher = publisher
        self._lease_s = lease_s
        self.worker_id = f"{process_id}-{uuid.uuid4().hex[:8]}"
        self._open: dict[str, OpenAnswer] = {}
        self._finishing: set[asyncio.Task[None]] = set()
        self.store = PieceStore(pieces, publisher, self.worker_id, self._open.values)
        self.leases = AnswerLeases(
            rows,
            self.worker_id,
            lease_s=lease_s,
            open_answers=self._open.values,
            fail=self._fail,
        )
        self._stops = AnswerStops(tails, is_here=self._open.__contains__, wake=self.leases.wake)

    # Beginning.

    async def begin(
        self,
        project_id: str,
        message: NewMessage,
        *,
        is_streamed: bool = True,
        may_begin: bool = True,
    ) -> Begun:
        """Append a user's message and begin its answer; see `AnswerRows.begin`.

        An answer that is ours is to be written here: `open` it.
        """
        begun = await self.rows.begin(
            project_id,
            message,
            self.worker_id,
            lease_s=self._lease_s,
            is_streamed=is_streamed,
            may_begin=may_begin,
        )
        if begun.is_ours:
            self._publisher.announce(begun.answer)
        return begun

    async def begin_reply(
        self,
        project_id: str,
        reply_to: str,
        user_id: str,
        *,
        client_msg_id: str | None = None,
        is_streamed: bool = True,
    ) -> BegunReply:
        """Begin an answer to a message of the log, to be written here if it `is_new`: `open` it.

        A repeat of a `client_msg_id` by the same user returns the first.

        Raises:
            AnswerNotFound: there is no such message among the newest 10,000 of the project.
            IdempotencyMismatch: the `client_msg_id` began an answer to another message.
        """
        answer = Answer(
            id=str(uuid.uuid4()),
            project_id=project_id,
            user_id=user_id,
            question_seq=await self.rows.question_seq(project_id, reply_to),
            reply_to=str(uuid.UUID(reply_to)),
            worker_id=self.worker_id,
            is_streamed=is_streamed,
        )
        return await self._begin(answer, client_msg_id)

    async def begin_again(
        self, before: Answer, user_id: str, *, client_msg_id: str | None = None
    ) -> BegunReply:
        """Begin another answer to the same message, to be written here if it `is_new`.

        Raises:
            AnswerInProgress: the answer before has not ended.
            IdempotencyMismatch: the `client_msg_id` began an answer after another one.
        """
        if before.end_seq is None:
            raise AnswerInProgress("the answer is still being written")
        answer = Answer(
            id=str(uuid.uuid4()),
            project_id=before.project_id,
            user_id=user_id,
            question_seq=before.question_seq,
            reply_to=before.reply_to,
            worker_id=self.worker_id,
            regenerates=before.id,
        )
        return await self._begin(answer, client_msg_id)

    async def _begin(self, answer: Answer, client_msg_id: str | None) -> BegunReply:
        begun = await self.rows.begin_reply(
            answer, lease_s=self._lease_s, client_msg_id=client_msg_id
        )
        if begun.is_new:
            self._publisher.announce(begun.answer)
        return begun

    # Writing.

    def open(self, answer: Answer, *, max_text_bytes: int = MAX_TEXT_BYTES) -> OpenAnswer:
        """Begin to write an answer that this process owns. It must be given to `end`."""
        opened = OpenAnswer(answer, self.store.wake, max_text_bytes=max_text_bytes)
        self._open[answer.id] = opened
        self._stops.listen(answer)
        self.leases.wake()
        return opened

    async def flush(self, opened: OpenAnswer) -> None:
        """Wait a moment until what was added is stored and published, or the answer interrupted."""

        async def published() -> None:
            await opened.all_stored()
            await self._publisher.published(opened.answer.id)

        waiting = asyncio.ensure_future(published())
        try:
            await asyncio.wait(
                [waiting, opened.interrupted],
                timeout=_FLUSH_TIMEOUT_S,
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            waiting.cancel()

    async def end(self, opened: OpenAnswer, *, reason: str | None = None) -> Message | None:
        """End an answer with what was written; None when another process has ended it.

        With a `reason` it is not complete: stopped, if somebody asked for that, else failed. Tries
        until Postgres answers.
        """
        written = opened.written
        ending = Ending(
            text=written.text,
            parts=written.parts,
            reason=reason,
            truncated=written.truncated or written.left_out,
        )
        try:
            return await self._end(opened.answer, ending)
        finally:
            self._close(opened)

    async def finish(self, opened: OpenAnswer, *, reason: str | None, patience_s: float) -> None:
        """Publish what is left and end an answer, even if the caller is cancelled.

        After `patience_s` without Postgres it is left to expire: another process ends it.
        """

        async def work() -> None:
            if reason is None:
                await self.flush(opened)
            try:
                async with asyncio.timeout(patience_s):
                    await self.end(opened, reason=reason)
            except TimeoutError:
                _log.warning("answer not ended", extra={"project_id": opened.answer.project_id})

        task = asyncio.create_task(work(), name="end answer")
        self._finishing.add(task)
        task.add_done_callback(self._finishing.discard)
        await asyncio.shield(task)

    def _close(self, opened: OpenAnswer) -> None:
        self._open.pop(opened.answer.id, None)
        self._stops.unlisten(opened.answer)
        opened.interrupt()

    async def _fail(self, answer: Answer) -> None:
        """End an answer that was taken over from a dead or silent writer, with what was stored."""
        reason = (
            "the assistant was silent"
            if answer.is_outside
            else "the process that was answering has died"
        )
        await self._end(answer, Ending(reason=reason))

    async def _end(self, answer: Answer, ending: Ending) -> Message | None:
        backoff = Backoff(first_s=_RETRY_FIRST_S, most_s=_RETRY_MOST_S)
        while True:
            try:
                return await self.rows.end(answer, self.worker_id, ending)
            except Unavailable:
                # Still ours: no other process can take it over while Postgres is away.
                await asyncio.sleep(backoff.next_s())
            except StreamsError as error:
                if ending.text == "":
                    raise
                _log.warning(
                    "answer refused",
                    extra={"project_id": answer.project_id, "error": str(error)},
                )
                ending = Ending(text="", parts=(), reason="the answer could not be kept")

    # Asking.

    async def get(self, project_id: str, message_seq: int) -> Answer | None:
        """Return the answer that began with a message; None when there is none."""
        return await self.rows.get(project_id, message_seq)

    async def state(self, project_id: str, answer_id: str) -> AnswerState | None:
        """Return how far an answer of the project is; None when there is no such answer."""
        return await self.rows.state(project_id, answer_id)

    async def stop(self, project_id: str, answer_id: str, user_id: str) -> StopRequested | None:
        """Ask an answer to stop, wherever it is written; None when there is no such answer.

        Returns when that is stored: from then on the answer ends soon, whatever becomes of this
        process, of Redis and of the process that writes. One that has ended stays as it is.
        """
        requested = await self.rows.request_stop(project_id, answer_id, user_id)
        if requested is not None and requested.is_new and not requested.answer.is_outside:
            self._stops.announce(project_id, requested.answer.id)
        return requested

    async def drained(self) -> None:
        """Wait until the answers that were given to `finish` have ended."""
        if self._finishing:
            await asyncio.wait(self._finishing)
        await self._publisher.drained()

    async def close(self) -> None:
        """Send and receive nothing more."""
        await end(self._finishing)
        await self._stops.close()
        await self._publisher.close()
