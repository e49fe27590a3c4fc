"""Writing one answer by the assistant, from the conversation before it to the message that ends it.

An answer always ends as one message with what was written so far, however it ends. Which answers
run in this process is in `answer_desk.py`; storing and publishing pieces is the library's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import aclosing

from service.assistant.assistants import Assistant, AssistantError, Turn
from streams.answers.open_answer import OpenAnswer
from streams.eventlog import EventLog
from streams.model.errors import StreamsError
from streams.model.events import Message

_log = logging.getLogger(__name__)

_CONTEXT_MESSAGES = 20
_CONTEXT_CHARACTERS = 32_000
# How long an interrupted assistant has to close its connection before the answer ends without it.
_CLOSE_S = 0.3


class AnswerWriter:
    """Lets the assistant write answers, each within `timeout_s`."""

    def __init__(self, log: EventLog, assistant: Assistant, *, timeout_s: float) -> None:
        self._log = log
        self._assistant = assistant
        self._timeout_s = timeout_s
        # Assistants that were told to stop and still close their connections.
        self._stopping: set[asyncio.Task[None]] = set()

    async def write(self, opened: OpenAnswer) -> None:
        """Write the answer and end it; also when interrupted or cancelled, with the text so far."""
        reason: str | None = "the service was stopped"
        try:
            reason = await self._ask(opened)
        finally:
            await self._log.answers.end(opened, reason=reason)

    async def close(self) -> None:
        """Give the assistants that still close their connections a moment more."""
        if self._stopping:
            await asyncio.wait(self._stopping, timeout=_CLOSE_S)

    async def _ask(self, opened: OpenAnswer) -> str | None:
        """Let the assistant write; return why the text is not complete, None if it is."""
        # A task: what interrupts an answer must not depend on how its assistant ends.
        asking = asyncio.create_task(self._collect(opened), name="assistant")
        try:
            await asyncio.wait(
                [asking, opened.interrupted],
                timeout=self._timeout_s,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if not asking.done():
                await self._stop(asking)
                if opened.interrupted.done():
                    return "the answer was interrupted"
                return "the assistant did not answer in time"
            await self._log.answers.flush(opened)
        except asyncio.CancelledError:
            if not asking.done():
                await self._stop(asking)
                return "the service was stopped"
        return _failure(asking, opened)

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

    async def _collect(self, opened: OpenAnswer) -> None:
        answer = opened.answer
        messages = await self._log.log.read(
            answer.project_id,
            before=answer.question_seq + 1,
            limit=_CONTEXT_MESSAGES + 1,
            descending=True,
        )
        if not messages:
            raise AssistantError("the message to answer is gone")
        async with aclosing(self._assistant.answer(conversation(messages))) as pieces:
            async for piece in pieces:
                if not opened.add(piece):
                    break


def _failure(asking: asyncio.Task[None], opened: OpenAnswer) -> str | None:
    """Return why an assistant that has ended did not complete its answer; None if it did."""
    error = None if asking.cancelled() else asking.exception()
    if isinstance(error, AssistantError):
        return str(error)
    if isinstance(error, StreamsError):
        return "the conversation could not be read"
    if asking.cancelled() or error is not None:
        # A bug: log the traceback, and still end the answer.
        _log.error(
            "assistant failed", extra={"project_id": opened.answer.project_id}, exc_info=error
        )
        return "something went wrong here"
    written = opened.written
    return None if written.text.strip() or written.parts else "the assistant said nothing"


def conversation(newest_first: Sequence[Message]) -> list[Turn]:
    """Return the newest turns that fit the bounds, oldest first; the newest is the question.

    Without the answers that ended before their first piece: some endpoints refuse an empty turn.
    """
    question, *before = newest_first
    turns = [Turn("user", question.content.text)]
    left = _CONTEXT_CHARACTERS
    for message in before:
        content = message.content
        left -= len(content.text)
        if left < 0:
            break
        if content.text:
            turns.append(Turn(content.type, content.text))
    turns.reverse()
    return turns
