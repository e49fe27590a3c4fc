"""Writing one answer, from the conversation before it to the message that ends it.

An answer always ends as a message: the assistant's text, or a sentence that says why there is
none. Which answers run in this process is in `answer_desk.py`, their leases in `answer_leases.py`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import aclosing

import msgspec

from service.assistant.answer_pieces import AnswerPieces
from service.assistant.assistants import Assistant, AssistantError, Turn
from streams.answers.answer_rows import Answer
from streams.eventlog import EventLog
from streams.model.errors import StreamsError, Unavailable
from streams.model.events import Message, NewMessage
from streams.runtime.backoff import Backoff

_log = logging.getLogger(__name__)

_CONTEXT_MESSAGES = 20
_CONTEXT_CHARACTERS = 32_000
_RETRY_FIRST_S = 0.25
_RETRY_MOST_S = 1.0


class _Ending(msgspec.Struct, frozen=True):
    """The message that an answer ends as."""

    text: str
    data: dict[str, object]
    is_failure: bool


class AnswerWriter:
    """Writes answers on behalf of `worker_id`, the holder of their leases."""

    def __init__(
        self, log: EventLog, assistant: Assistant, worker_id: str, *, timeout_s: float
    ) -> None:
        self._log = log
        self._assistant = assistant
        self._worker_id = worker_id
        self._timeout_s = timeout_s

    async def write(self, answer: Answer, question: NewMessage, *, stream: bool) -> None:
        """Write the answer and end it. Cancelled while the assistant writes, end it as failed."""
        pieces = AnswerPieces(self._log, answer, stream=stream)
        failure: str | None = None
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._collect(answer, question, pieces)
            await pieces.finish()
            if not pieces.text.strip():
                failure = "the assistant said nothing"
        except AssistantError as error:
            failure = str(error)
        except TimeoutError:
            failure = "the assistant did not answer in time"
        except StreamsError:
            failure = "the conversation could not be read"
        except asyncio.CancelledError:
            failure = "the service was stopped"
        except Exception:  # noqa: BLE001 - a bug: log the traceback, and still end the answer
            _log.exception("assistant failed", extra={"project_id": answer.project_id})
            failure = "something went wrong here"
        finally:
            pieces.close()
        await self._end(answer, _failed(failure) if failure is not None else _complete(pieces))

    async def fail(self, answer: Answer, reason: str) -> None:
        """End the answer with a sentence that says why there is none."""
        await self._end(answer, _failed(reason))

    async def _collect(self, answer: Answer, question: NewMessage, pieces: AnswerPieces) -> None:
        messages = await self._log.log.read(
            answer.project_id,
            before=answer.message_seq,
            limit=_CONTEXT_MESSAGES,
            descending=True,
        )
        turns = conversation(messages, question.text)
        async with aclosing(self._assistant.answer(turns)) as assistant_pieces:
            async for piece in assistant_pieces:
                if not pieces.add(piece):
                    break

    async def _end(self, answer: Answer, ending: _Ending) -> None:
        backoff = Backoff(first_s=_RETRY_FIRST_S, most_s=_RETRY_MOST_S)
        while True:
            try:
                await self._log.answers.end(answer, self._worker_id, ending.text, ending.data)
            except Unavailable:
                # Still ours: no other process can take it over while Postgres is away.
                await asyncio.sleep(backoff.next_s())
            except StreamsError as error:
                if ending.is_failure:
                    raise
                _log.warning(
                    "answer refused",
                    extra={"project_id": answer.project_id, "error": str(error)},
                )
                ending = _failed("the answer could not be kept")
            else:
                return


def _complete(pieces: AnswerPieces) -> _Ending:
    data: dict[str, object] = {"type": "answer", "truncated": pieces.truncated}
    return _Ending(pieces.text, data, is_failure=False)


def _failed(reason: str) -> _Ending:
    data: dict[str, object] = {"type": "answer_failed", "reason": reason}
    return _Ending(f"No answer: {reason}.", data, is_failure=True)


def conversation(newest_first: Sequence[Message], question: str) -> list[Turn]:
    """Return the newest turns that fit the bounds, oldest first, then the question."""
    turns: list[Turn] = []
    left = _CONTEXT_CHARACTERS
    for message in newest_first:
        content = message.content
        left -= len(content.text)
        if left < 0:
            break
        turns.append(Turn(content.type, content.text))
    turns.reverse()
    return [*turns, Turn("user", question)]
