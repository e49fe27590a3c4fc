"""Puts stored pieces of answers into the projects' streams.

No retry: a piece is stored before it comes here, and what Redis does not take now is found by the
poll of every process that has readers (`answer_watch.py`), as a lost publish of a message is.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

import msgspec

from streams.answers.answer_events import ANSWER_STATE, MESSAGE_DELTA, delta_data, state_data
from streams.answers.answer_values import Answer, AnswerState
from streams.answers.pieces import Piece
from streams.model.errors import StreamsError, WindowUnavailable
from streams.model.shards import shard_of
from streams.runtime.health import Health
from streams.runtime.owned_tasks import end
from streams.tail.lane_set import LaneSet
from streams.window.transient import TransientWriter

# Pieces of all answers that wait for Redis; more are left to the poll.
_MAX_WAITING = 2000


class _Waiting(msgspec.Struct):
    """The pieces of one answer on their way; the task sends them in their order."""

    pieces: deque[bytes]
    task: asyncio.Task[None]


class PiecePublisher:
    """Publishes what it is given soon, the pieces of an answer in order, each at most once."""

    def __init__(self, transient: TransientWriter, lanes: LaneSet, health: Health) -> None:
        self._transient = transient
        self._lanes = lanes
        self._health = health
        self._waiting: dict[str, _Waiting] = {}
        self._announcing: set[asyncio.Task[None]] = set()
        self._count = 0

    def submit(self, answer: Answer, first_index: int, pieces: Sequence[Piece]) -> None:
        """Publish stored pieces, the first under `first_index`; return at once."""
        if not pieces or not answer.is_streamed or self._count >= _MAX_WAITING:
            return
        if not self._health.can_write(shard_of(answer.project_id)):
            return
        data = [delta_data(answer, index, piece) for index, piece in enumerate(pieces, first_index)]
        self._count += len(data)
        waiting = self._waiting.get(answer.id)
        if waiting is not None:
            waiting.pieces.extend(data)
            return
        task = asyncio.create_task(self._send(answer), name="publish pieces")
        self._waiting[answer.id] = _Waiting(deque(data), task)

    async def _send(self, answer: Answer) -> None:
        pieces = self._waiting[answer.id].pieces
        try:
            while pieces:
                data = pieces.popleft()
                self._count -= 1
                try:
                    await self._transient.append(answer.project_id, MESSAGE_DELTA, data)
                except WindowUnavailable:
                    self._health.suspect()
                    return
                except StreamsError:
                    return
        finally:
            self._count -= len(pieces)
            del self._waiting[answer.id]

    def announce(self, answer: Answer) -> None:
        """Tell open streams that an answer begins; return at once."""
        if not answer.is_streamed or len(self._announcing) >= _MAX_WAITING:
            return
        task = asyncio.create_task(self._announce(answer), name="announce answer")
        self._announcing.add(task)
        task.add_done_callback(self._announcing.discard)

    async def _announce(self, answer: Answer) -> None:
        state = AnswerState(answer=answer, status="in_progress", text="", parts=[], index=-1)
        try:
            await self._lanes.signal(answer.project_id, ANSWER_STATE, state_data(state))
        except WindowUnavailable:
            self._health.suspect()

    async def published(self, answer_id: str) -> None:
        """Wait until one attempt was made for all pieces of an answer."""
        waiting = self._waiting.get(answer_id)
        if waiting is not None:
            await asyncio.wait([waiting.task])

    async def drained(self) -> None:
        """Wait until one attempt was made for everything submitted so far."""
        tasks = [*self._announcing, *(waiting.task for waiting in self._waiting.values())]
        if tasks:
            await asyncio.wait(tasks)

    async def close(self) -> None:
        """Publish nothing more."""
        await end([*self._announcing, *(waiting.task for waiting in self._waiting.values())])
