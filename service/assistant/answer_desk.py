"""The answers that the assistant writes in this process: starting within limits, waiting, draining.

One answer is written by `answer_writer.py`; its pieces, its lease and requests to stop it are the
library's (`streams/answers/`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from service.access.limits import SlotRefusal, Slots
from service.assistant.answer_writer import AnswerWriter
from service.assistant.assistants import Assistant
from service.http.api_errors import rate_limited
from service.telemetry.metrics import Metrics
from streams.answers.answer_values import Answer, Begun, BegunReply
from streams.eventlog import EventLog
from streams.model.errors import Overloaded, Unavailable
from streams.model.events import MAX_TEXT_BYTES, Message, NewMessage

T = TypeVar("T")

# Retry-After for a user or project at its limit: about the length of an answer.
_LIMIT_RETRY_S = 5.0
_POLL_EVERY_S = 0.2
_DRAIN_S = 1.5
_STOP_TIMEOUT_S = 1.5


class AnswerDesk:
    """Starts answers, at most as many at once as `slots` allow."""

    def __init__(
        self,
        log: EventLog,
        assistant: Assistant,
        slots: Slots,
        metrics: Metrics,
        *,
        lease_s: float,
        timeout_s: float,
        max_text_bytes: int = MAX_TEXT_BYTES,
    ) -> None:
        self._log = log
        self._assistant = assistant
        self._slots = slots
        self._metrics = metrics
        # The longest answer, and the time until a dead process's answer is taken over.
        self._wait_s = timeout_s + 3 * lease_s
        self._max_text_bytes = max_text_bytes
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._closing = False
        self._writer = AnswerWriter(log, assistant, timeout_s=timeout_s)

    async def start(self, project_id: str, message: NewMessage, *, stream: bool) -> Begun:
        """Commit a user's message and start to answer it; return when it is committed.

        A repeat of its `client_msg_id` starts no second answer. With `stream` the pieces go to
        the project's stream as the assistant writes them. Cancellation does not undo the commit.

        Raises:
            ApiError: the user or the project has too many running answers in this process (429).
            Overloaded: too many answers run in this process, or it is shutting down.
            InvalidInput, PayloadTooLarge, IdempotencyMismatch, ProjectNotFound: nothing written.
            LogUnavailable: repeat with the same client_msg_id.
        """
        refused = self._place(project_id, message.user_id, message.client_msg_id)
        return await _to_completion(self._start(project_id, message, stream, refused))

    async def _start(
        self, project_id: str, message: NewMessage, stream: bool, refused: SlotRefusal | None
    ) -> Begun:
        """Start an answer. Without a slot, only return the first result of a repeat (G5)."""
        is_begun = False
        try:
            begun = await self._log.answers.begin(
                project_id, message, is_streamed=stream, may_begin=refused is None
            )
            is_begun = begun.is_ours
        except Overloaded:
            if refused is None:
                raise
            raise self._refusal(refused) from None
        finally:
            if refused is None and not is_begun:
                self._slots.release(project_id, message.user_id)
        if is_begun:
            self._write(begun.answer)
        return begun

    async def regenerate(
        self, before: Answer, user_id: str, *, client_msg_id: str | None
    ) -> BegunReply:
        """Begin another answer to the message that `before` answered; return when that is stored.

        A repeat of a `client_msg_id` begins nothing and returns the first. Cancellation does not
        undo it.

        Raises:
            AnswerInProgress, IdempotencyMismatch: nothing was begun.
            ApiError, Overloaded: too many answers are under way; see `start`.
            LogUnavailable: repeat with the same client_msg_id.
        """
        refused = self._place(before.project_id, user_id, None)
        assert refused is None
        return await _to_completion(self._regenerate(before, user_id, client_msg_id))

    async def _regenerate(
        self, before: Answer, user_id: str, client_msg_id: str | None
    ) -> BegunReply:
        is_begun = False
        try:
            begun = await self._log.answers.begin_again(
                before, user_id, client_msg_id=client_msg_id
            )
            is_begun = begun.is_new
        finally:
            if not is_begun:
                self._slots.release(before.project_id, user_id)
        if is_begun:
            self._write(begun.answer)
        return begun

    def _place(
        self, project_id: str, user_id: str, client_msg_id: str | None
    ) -> SlotRefusal | None:
        """Take a place; return what refused it where a repeat may still get its first result."""
        if self._closing:
            raise Overloaded("no more answers are begun here")
        refused = self._slots.acquire(project_id, user_id)
        if refused is not None and client_msg_id is None:
            raise self._refusal(refused)
        return refused

    def _write(self, answer: Answer) -> None:
        opened = self._log.answers.open(answer, max_text_bytes=self._max_text_bytes)
        task = asyncio.create_task(self._writer.write(opened), name="answer")
        self._tasks[answer.id] = task
        task.add_done_callback(lambda _: self._ended(answer))

    def _ended(self, answer: Answer) -> None:
        self._tasks.pop(answer.id, None)
        self._slots.release(answer.project_id, answer.user_id)

    def _refusal(self, refused: SlotRefusal) -> Exception:
        if refused == "process":
            return Overloaded("too many answers are under way")
        self._metrics.rate_limited.inc()
        return rate_limited(
            _LIMIT_RETRY_S, f"Too many answers are under way (limit of the {refused})"
        )

    async def wait(self, answer: Answer) -> Message:
        """Return the message that the answer ended as, whichever process writes it.

        Raises:
            Unavailable: it did not end in time.
        """
        task = self._tasks.get(answer.id)
        try:
            async with asyncio.timeout(self._wait_s):
                if task is not None:
                    await asyncio.wait([task])
                while True:
                    found = await self._log.answers.get(answer.project_id, answer.question_seq)
                    if found is not None and found.end_seq is not None:
                        (message,) = await self._log.log.read(
                            answer.project_id, after=found.end_seq - 1, limit=1
                        )
                        return message
                    await asyncio.sleep(_POLL_EVERY_S)
        except TimeoutError:
            raise Unavailable("the answer did not come in time") from None

    async def drain(self) -> None:
        """Refuse new answers; give running ones a moment, then end them with the text so far.

        Runs once. An answer that cannot be ended because Postgres is away is left to expire.
        """
        if self._closing:
            return
        self._closing = True
        tasks = list(self._tasks.values())
        if tasks:
            await asyncio.wait(tasks, timeout=_DRAIN_S)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=_STOP_TIMEOUT_S)
        await self._assistant.close()
        await self._writer.close()


async def _to_completion(work: Coroutine[Any, Any, T]) -> T:
    """Run work to its end: a client's disconnect must not cancel between commit and start."""
    task = asyncio.create_task(work)
    task.add_done_callback(_retrieve_exception)
    return await asyncio.shield(task)


def _retrieve_exception(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        # The caller got it through the shield; if it is gone, nobody needs it.
        task.exception()
