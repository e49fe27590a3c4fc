"""Answers under way in this process: their pieces, their leases, their end.

An answer always ends as a message: the assistant's text, or a sentence that says why there is
none. When the process dies, another one ends it (`run`).
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Sequence
from contextlib import aclosing

import msgspec

from service.access.limits import SlotRefusal, Slots
from service.assistant.assistants import Assistant, AssistantError, Turn
from service.http.api_errors import rate_limited
from service.telemetry.metrics import Metrics
from streams.answers.answer_rows import Answer, Begun
from streams.eventlog import EventLog
from streams.model.errors import Overloaded, StreamsError, Unavailable
from streams.model.events import MAX_TEXT_BYTES, Message, NewMessage, encode, format_now

_log = logging.getLogger(__name__)

DELTA_EVERY_S = 0.05
# Escaped six-fold at worst, a piece is still within the bound on a transient entry.
_DELTA_CHARACTERS = 8000
_CONTEXT_MESSAGES = 20
_CONTEXT_CHARACTERS = 32_000
# When a user whose answers are all under way may try again: answers take about so long.
_LIMIT_RETRY_S = 5.0
_LOOK_EVERY_S = 0.2
_RETRY_S = 0.5
_DRAIN_S = 1.5
_STOP_TIMEOUT_S = 1.5


class _DeltaContent(msgspec.Struct, rename="camel"):
    message_id: str
    index: int
    delta: str


class _Delta(msgspec.Struct, rename="camel"):
    project_id: str
    user_id: str
    content: _DeltaContent
    timestamp: str


class AnswerDesk:
    """Gives answers, as many at a time as there are `slots`. `run` looks after leases."""

    def __init__(
        self,
        log: EventLog,
        assistant: Assistant,
        slots: Slots,
        metrics: Metrics,
        *,
        lease_s: float,
        timeout_s: float,
    ) -> None:
        self._log = log
        self._assistant = assistant
        self._slots = slots
        self._metrics = metrics
        self._lease_s = lease_s
        self._timeout_s = timeout_s
        self._worker_id = f"{log.process_id}-{uuid.uuid4().hex[:8]}"
        self._giving: dict[str, asyncio.Task[None]] = {}
        self._closing = False

    async def start(self, project_id: str, message: NewMessage, *, stream: bool) -> Begun:
        """Commit a user's message and begin to answer it; return when it is committed.

        A repeat of its `client_msg_id` begins no second answer. `stream`: the pieces go to the
        project's stream as they come.

        Raises:
            ApiError: too many answers of the user or the project are under way here (429).
            Overloaded: too many answers are under way here.
            InvalidInput, PayloadTooLarge, IdempotencyMismatch, ProjectNotFound: nothing written.
            LogUnavailable: repeat with the same client_msg_id.
        """
        if self._closing:
            raise Overloaded("no more answers are begun here")
        refused = self._slots.acquire(project_id, message.user_id)
        if refused is not None and message.client_msg_id is None:
            raise self._refusal(refused)
        # Not to be cut between the commit and the answer's beginning.
        task = asyncio.create_task(self._start(project_id, message, stream, refused))
        task.add_done_callback(_look_at)
        return await asyncio.shield(task)

    async def _start(
        self, project_id: str, message: NewMessage, stream: bool, refused: SlotRefusal | None
    ) -> Begun:
        """Begin; if there is no place for one more answer, only a repeat is answered (G5)."""
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
            answer = begun.answer
            task = asyncio.create_task(self._give(answer, message, stream), name="answer")
            self._giving[answer.id] = task
            task.add_done_callback(lambda _: self._given(answer))
        return begun

    def _given(self, answer: Answer) -> None:
        self._giving.pop(answer.id, None)
        self._slots.release(answer.project_id, answer.user_id)

    def _refusal(self, refused: SlotRefusal) -> Exception:
        if refused == "process":
            return Overloaded("too many answers are under way")
        self._metrics.rate_limited.inc()
        return rate_limited(
            _LIMIT_RETRY_S, f"Too many answers are under way (limit of the {refused})"
        )

    async def wait(self, answer: Answer) -> Message:
        """Return the message that the answer ended as, wherever it is given.

        Raises:
            Unavailable: not in time.
        """
        # Longer than an answer may last, and longer than its process may be dead unnoticed.
        limit_s = self._timeout_s + 3 * self._lease_s
        task = self._giving.get(answer.id)
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
                    await asyncio.sleep(_LOOK_EVERY_S)
        except TimeoutError:
            raise Unavailable("the answer did not come in time") from None

    # Giving one answer.

    async def _give(self, answer: Answer, asked: NewMessage, stream: bool) -> None:
        pieces = _Pieces(self._log, answer, stream)
        failure: str | None = None
        try:
            async with asyncio.timeout(self._timeout_s):
                turns = await self._conversation(answer, asked)
                async with aclosing(self._assistant.answer(turns)) as said:
                    async for piece in said:
                        if not pieces.add(piece):
                            break
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
        except Exception:  # noqa: BLE001 - a bug: logged whole, and the user gets an end all the same
            _log.exception("assistant failed", extra={"project_id": answer.project_id})
            failure = "something went wrong here"
        finally:
            pieces.close()
        await self._end(answer, pieces, failure)

    async def _end(self, answer: Answer, pieces: _Pieces | None, failure: str | None) -> None:
        data: dict[str, object]
        if failure is None:
            assert pieces is not None
            text = pieces.text
            data = {"type": "answer", "truncated": pieces.truncated}
        else:
            text = f"No answer: {failure}."
            data = {"type": "answer_failed", "reason": failure}
        while True:
            try:
                await self._log.answers.end(answer, self._worker_id, text, data)
            except Unavailable:
                # It is this process's until another takes it, which it cannot meanwhile.
                await asyncio.sleep(_RETRY_S)
            except StreamsError as error:
                if failure is not None:
                    raise
                _log.warning(
                    "answer refused",
                    extra={"project_id": answer.project_id, "error": str(error)},
                )
                failure = "the answer could not be kept"
                text = f"No answer: {failure}."
                data = {"type": "answer_failed", "reason": failure}
            else:
                return

    async def _conversation(self, answer: Answer, asked: NewMessage) -> list[Turn]:
        messages = await self._log.log.read(
            answer.project_id,
            before=answer.message_seq,
            limit=_CONTEXT_MESSAGES,
            descending=True,
        )
        return conversation(messages, asked.text)

    # Looking after leases.

    async def run(self) -> None:
        """Renew the leases of the answers given here, and end those of processes that died.

        After an outage of Postgres all leases have run out, also of processes that live: they
        get the length of a lease to renew them before anybody takes over.
        """
        loop = asyncio.get_running_loop()
        pause_s = self._lease_s / 3
        # Since when Postgres answers without a break, as far as it was asked from here.
        answers_since_s: float | None = loop.time()
        while True:
            await asyncio.sleep(pause_s)
            pause_s = self._lease_s / 3
            try:
                async with asyncio.timeout(self._lease_s):
                    await self._renew()
                if answers_since_s is None:
                    answers_since_s = loop.time()
                if loop.time() - answers_since_s >= self._lease_s:
                    await self._take_over()
            except (Unavailable, TimeoutError):
                # Nobody else can do it either. Asked again soon, to renew before others take over.
                answers_since_s = None
                pause_s = min(_RETRY_S, pause_s)
            except StreamsError as error:
                answers_since_s = None
                _log.warning("answers not looked after", extra={"error": str(error)})

    async def _take_over(self) -> None:
        for answer in await self._log.answers.take_over(self._worker_id, lease_s=self._lease_s):
            await self._end(answer, None, "the process that was answering has died")

    async def _renew(self) -> None:
        giving = list(self._giving)
        ours = await self._log.answers.renew(giving, self._worker_id, lease_s=self._lease_s)
        for answer_id in giving:
            task = self._giving.get(answer_id)
            if answer_id not in ours and task is not None:
                # It has ended just now, or another process has ended it: `end` then does nothing.
                _log.debug("answer not ours", extra={"answer_id": answer_id})

    async def drain(self) -> None:
        """Begin no more; give those under way a moment, then end them as failed.

        Once: those that did not end then wait for a database that does not answer.
        """
        if self._closing:
            return
        self._closing = True
        tasks = list(self._giving.values())
        if tasks:
            await asyncio.wait(tasks, timeout=_DRAIN_S)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=_STOP_TIMEOUT_S)
        await self._assistant.close()


class _Pieces:
    """The text of an answer so far, and its way into the stream: a few pieces a second.

    A piece that could not be appended is tried again as it is: its index stands for its text.
    """

    def __init__(self, log: EventLog, answer: Answer, stream: bool) -> None:
        self.text = ""
        self.truncated = False
        self._size_bytes = 0
        self._log = log
        self._answer = answer
        self._sent = 0
        self._index = 0
        self._wake = asyncio.Event()
        self._all_said = False
        self._sending = asyncio.create_task(self._send(), name="deltas") if stream else None

    def add(self, piece: str) -> bool:
        """Take a piece; tell whether there is room for more."""
        piece = piece.replace("\x00", "").encode("utf-8", "replace").decode()
        room = MAX_TEXT_BYTES - self._size_bytes
        encoded = piece.encode()
        if len(encoded) > room:
            piece = encoded[:room].decode("utf-8", "ignore")
            self.truncated = True
        self._size_bytes += len(piece.encode())
        self.text += piece
        self._wake.set()
        return not self.truncated

    async def finish(self) -> None:
        """Wait until all pieces were sent, a few seconds at most: the message has the whole."""
        self._all_said = True
        self._wake.set()
        if self._sending is not None:
            await asyncio.wait([self._sending], timeout=_DRAIN_S)

    def close(self) -> None:
        """Send no more."""
        if self._sending is not None:
            self._sending.cancel()

    async def _send(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._sent < len(self.text):
                upto = min(len(self.text), self._sent + _DELTA_CHARACTERS)
                await self._send_until_taken(self.text[self._sent : upto])
                self._sent = upto
                if not self._all_said:
                    await asyncio.sleep(DELTA_EVERY_S)
            if self._all_said:
                return

    async def _send_until_taken(self, delta: str) -> None:
        content = _DeltaContent(self._answer.id, self._index, delta)
        while True:
            data = encode(
                _Delta(self._answer.project_id, self._answer.user_id, content, format_now())
            )
            try:
                await self._log.append_transient(self._answer.project_id, "message.delta", data)
            except StreamsError:
                # Redis is away, most likely: the message that follows has the whole.
                await asyncio.sleep(_RETRY_S)
            else:
                self._index += 1
                return


def _look_at(task: asyncio.Task[Begun]) -> None:
    if not task.cancelled():
        # Whoever asked has it, or is gone and has nobody to tell.
        task.exception()


def conversation(newest_first: Sequence[Message], asked: str) -> list[Turn]:
    """The turns before a question, within bounds, and the question."""
    turns: list[Turn] = []
    left = _CONTEXT_CHARACTERS
    for message in newest_first:
        content = message.content
        left -= len(content.text)
        if left < 0:
            break
        turns.append(Turn(content.type, content.text))
    turns.reverse()
    return [*turns, Turn("user", asked)]
