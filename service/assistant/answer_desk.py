"""The answers that run in this process: starting them within limits, waiting, draining.

One answer is written by `answer_writer.py`; leases are kept by `answer_leases.py`. How a request to
stop reaches the process that writes is in `answer_stops.py`.
"""

from __future__ import annotations

import asyncio
import uuid

from service.access.limits import SlotRefusal, Slots
from service.assistant.answer_leases import AnswerLeases
from service.assistant.answer_pieces import AnswerPieces
from service.assistant.answer_stops import AnswerStops
from service.assistant.answer_writer import AnswerWriter
from service.assistant.assistants import Assistant
from service.assistant.running_answer import RunningAnswer
from service.http.api_errors import rate_limited
from service.telemetry.metrics import Metrics
from streams.answers.answer_values import Answer, AnswerState, Begun
from streams.eventlog import EventLog
from streams.model.errors import Overloaded, Unavailable
from streams.model.events import MAX_TEXT_BYTES, Message, NewMessage

# Retry-After for a user or project at its limit: about the length of an answer.
_LIMIT_RETRY_S = 5.0
_POLL_EVERY_S = 0.2
_DRAIN_S = 1.5
_STOP_TIMEOUT_S = 1.5


class AnswerDesk:
    """Starts answers, at most as many at once as `slots` allow. `run` keeps their leases."""

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
        self._lease_s = lease_s
        self._timeout_s = timeout_s
        self._max_text_bytes = max_text_bytes
        self._worker_id = f"{log.process_id}-{uuid.uuid4().hex[:8]}"
        self._running: dict[str, RunningAnswer] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._closing = False
        self._writer = AnswerWriter(log, assistant, self._worker_id, timeout_s=timeout_s)
        self._leases = AnswerLeases(
            log,
            self._worker_id,
            lease_s=lease_s,
            running=self._running.values,
            fail=self._writer.fail,
        )
        self._stops = AnswerStops(log, is_here=self._running.__contains__, wake=self._leases.wake)

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
        if self._closing:
            raise Overloaded("no more answers are begun here")
        refused = self._slots.acquire(project_id, message.user_id)
        if refused is not None and message.client_msg_id is None:
            raise self._refusal(refused)
        # A task of its own: a client's disconnect must not cancel between commit and start.
        task = asyncio.create_task(self._start(project_id, message, stream, refused))
        task.add_done_callback(_retrieve_exception)
        return await asyncio.shield(task)

    async def _start(
        self, project_id: str, message: NewMessage, stream: bool, refused: SlotRefusal | None
    ) -> Begun:
        """Start an answer. Without a slot, only return the first result of a repeat (G5)."""
        is_begun = False
        try:
            begun = await self._log.answers.begin(
                project_id,
                message,
                self._worker_id,
                lease_s=self._lease_s,
                may_begin=refused is None,
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
            self._write(begun.answer, message, stream)
        return begun

    def _write(self, answer: Answer, message: NewMessage, stream: bool) -> None:
        pieces = AnswerPieces(self._log, answer, stream=stream, max_text_bytes=self._max_text_bytes)
        running = RunningAnswer(answer, pieces)
        self._running[answer.id] = running
        task = asyncio.create_task(self._writer.write(running, message), name="answer")
        self._tasks[answer.id] = task
        task.add_done_callback(lambda _: self._ended(answer))
        self._stops.listen(answer)
        self._leases.wake()

    def _ended(self, answer: Answer) -> None:
        self._running.pop(answer.id, None)
        self._tasks.pop(answer.id, None)
        self._stops.unlisten(answer)
        self._slots.release(answer.project_id, answer.user_id)

    async def stop(self, project_id: str, answer_id: str, user_id: str) -> AnswerState | None:
        """Ask an answer to stop, wherever it is written; None when there is no such answer.

        Returns when that is stored: from then on the answer ends soon, whatever becomes of this
        process, of Redis and of the process that writes. One that has ended stays as it is.
        Raises `LogUnavailable`.
        """
        requested = await self._log.answers.request_stop(project_id, answer_id, user_id)
        if requested is None:
            return None
        if requested.is_new:
            self._stops.announce(project_id, requested.state.id)
        return requested.state

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
        # The longest answer, and the time until a dead process's answer is taken over.
        limit_s = self._timeout_s + 3 * self._lease_s
        task = self._tasks.get(answer.id)
        try:
            async with asyncio.timeout(limit_s):
                if task is not None:
                    await asyncio.wait([task])
                while True:
                    found = await self._log.answers.get(answer.project_id, answer.message_seq)
                    if found is not None and found.end_seq is not None:
                        (message,) = await self._log.log.read(
                            answer.project_id, after=found.end_seq - 1, limit=1
                        )
                        return message
                    await asyncio.sleep(_POLL_EVERY_S)
        except TimeoutError:
            raise Unavailable("the answer did not come in time") from None

    async def run(self) -> None:
        """Keep the answers until cancelled, also while draining (see `AnswerLeases.run`)."""
        await self._leases.run()

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
        await self._stops.close()
        await self._assistant.close()
        await self._writer.close()


def _retrieve_exception(task: asyncio.Task[Begun]) -> None:
    if not task.cancelled():
        # The caller got it through the shield; if it is gone, nobody needs it.
        task.exception()
