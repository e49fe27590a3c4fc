"""Writing one answer, from the conversation before it to the message that ends it.

An answer always ends as one message with the text so far, however it ends. Which answers run in
this process is in `answer_desk.py`, their leases in `answer_leases.py`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import aclosing

from service.assistant.assistants import Assistant, AssistantError, Turn
from service.assistant.running_answer import RunningAnswer
from streams.answers.answer_ends import Ending
from streams.answers.answer_values import Answer
from streams.eventlog import EventLog
from streams.model.errors import StreamsError, Unavailable
from streams.model.events import Message, NewMessage
from streams.runtime.backoff import Backoff

_log = logging.getLogger(__name__)

_CONTEXT_MESSAGES = 20
_CONTEXT_CHARACTERS = 32_000
_RETRY_FIRST_S = 0.25
_RETRY_MOST_S = 1.0
# How long an interrupted assistant has to close its connection before the answer ends without it.
_CLOSE_S = 0.3


class AnswerWriter:
    """Writes answers on behalf of `worker_id`, the holder of their leases."""

    def __init__(
        self, log: EventLog, assistant: Assistant, worker_id: str, *, timeout_s: float
    ) -> None:
        self._log = log
        self._assistant = assistant
        self._worker_id = worker_id
        self._timeout_s = timeout_s
        # Assistants that were told to stop and still close their connections.
        self._stopping: set[asyncio.Task[None]] = set()

    async def write(self, running: RunningAnswer, question: NewMessage) -> None:
        """Write the answer and end it; also when interrupted or cancelled, with the text so far."""
        pieces = running.pieces
        try:
            reason = await self._ask(running, question)
        finally:
            pieces.close()
        ending = Ending(text=pieces.text, reason=reason, truncated=pieces.truncated)
        await self._end(running.answer, ending)

    async def fail(self, answer: Answer, reason: str) -> None:
        """End an answer that another process began, with the text that it had stored."""
        await self._end(answer, Ending(text=answer.text, reason=reason))

    async def close(self) -> None:
        """Give the assistants that still close their connections a moment more."""
        if self._stopping:
            await asyncio.wait(self._stopping, timeout=_CLOSE_S)

    async def _ask(self, running: RunningAnswer, question: NewMessage) -> str | None:
        """Let the assistant write; return why the text is not complete, None if it is."""
        # A task: what interrupts an answer must not depend on how its assistant ends.
        asking = asyncio.create_task(self._collect(running, question), name="assistant")
        try:
            await asyncio.wait(
                [asking, running.interrupted],
                timeout=self._timeout_s,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if not asking.done():
                await self._stop(asking)
                if running.interrupted.done():
                    return "the answer was interrupted"
                return "the assistant did not answer in time"
            await running.pieces.finish(running.interrupted)
        except asyncio.CancelledError:
            if not asking.done():
                await self._stop(asking)
                return "the service was stopped"
        return _failure(asking, running)

    async def _stop(self, asking: asyncio.Task[None]) -> None:
        self._stopping.add(asking)
        asking.add_done_callback(self._stopped)
        asking.cancel()
        await asyncio.wait([asking], timeout=_CLOSE_S)

    def _stopped(self, asking: asyncio.Task[None]) -> None:
        self._stopping.discard(asking)
        if not asking.cancelled():
            # Whatever it ended with: the answer has been given up.
            asking.exception()

    async def _collect(self, running: RunningAnswer, question: NewMessage) -> None:
        answer = running.answer
        messages = await self._log.log.read(
            answer.project_id,
            before=answer.message_seq,
            limit=_CONTEXT_MESSAGES,
            descending=True,
        )
        turns = conversation(messages, question.text)
        async with aclosing(self._assistant.answer(turns)) as assistant_pieces:
            async for piece in assistant_pieces:
                if piece.kind == "text" and not running.pieces.add(piece.delta):
                    break

    async def _end(self, answer: Answer, ending: Ending) -> None:
        backoff = Backoff(first_s=_RETRY_FIRST_S, most_s=_RETRY_MOST_S)
        while True:
            try:
                await self._log.answers.end(answer, self._worker_id, ending)
            except Unavailable:
                # Still ours: no other process can take it over while Postgres is away.
                await asyncio.sleep(backoff.next_s())
            except StreamsError as error:
                if not ending.text:
                    raise
                _log.warning(
                    "answer refused",
                    extra={"project_id": answer.project_id, "error": str(error)},
                )
                ending = Ending(text="", reason="the answer could not be kept")
            else:
                return


def _failure(asking: asyncio.Task[None], running: RunningAnswer) -> str | None:
    """Return why an assistant that has ended did not complete its answer; None if it did."""
    error = None if asking.cancelled() else asking.exception()
    if isinstance(error, AssistantError):
        return str(error)
    if isinstance(error, StreamsError):
        return "the conversation could not be read"
    if asking.cancelled() or error is not None:
        # A bug: log the traceback, and still end the answer.
        _log.error(
            "assistant failed", extra={"project_id": running.answer.project_id}, exc_info=error
        )
        return "something went wrong here"
    return None if running.pieces.text.strip() else "the assistant said nothing"


def conversation(newest_first: Sequence[Message], question: str) -> list[Turn]:
    """Return the newest turns that fit the bounds, oldest first, then the question.

    Without the answers that ended before their first piece: some endpoints refuse an empty turn.
    """
    turns: list[Turn] = []
    left = _CONTEXT_CHARACTERS
    for message in newest_first:
        content = message.content
        left -= len(content.text)
        if left < 0:
            break
        if content.text:
            turns.append(Turn(content.type, content.text))
    turns.reverse()
    return [*turns, Turn("user", question)]
