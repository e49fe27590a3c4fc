"""Carries requests to stop an answer to the process that writes it, through Redis.

It only saves time, and what it says is not believed: a process that is told looks at the answer's
row, and one that is told nothing reads the same there half a second later (`answer_leases.py`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from streams.answers.answer_values import Answer
from streams.model.errors import StreamsError
from streams.runtime.owned_tasks import end
from streams.tail.registry import TailRegistry

_log = logging.getLogger(__name__)

ANSWER_STOP = "answer.stop"
"""The notice that an answer was asked to stop; its data is the answer's id."""


class AnswerStops:
    """Sends and receives the notices. `wake` is called when an answer of this process has one."""

    def __init__(
        self, tails: TailRegistry, *, is_here: Callable[[str], bool], wake: Callable[[], None]
    ) -> None:
        self._tails = tails
        self._is_here = is_here
        self._wake = wake
        self._listening: dict[str, asyncio.Task[None]] = {}
        self._announcing: set[asyncio.Task[None]] = set()
        tails.on_notice(self._noticed)

    def listen(self, answer: Answer) -> None:
        """Receive the notices of the answer's project until `unlisten`.

        Notices arrive where the project has a tail. If it gets none, nothing is lost but time.
        """
        task = asyncio.create_task(self._hold_tail(answer.project_id), name="hear stop")
        self._listening[answer.id] = task

    def unlisten(self, answer: Answer) -> None:
        """Release what `listen` holds."""
        task = self._listening.pop(answer.id, None)
        if task is not None:
            task.cancel()

    async def _hold_tail(self, project_id: str) -> None:
        try:
            async with self._tails.reading(project_id):
                await asyncio.Event().wait()
        except StreamsError as error:
            _log.debug("stops not heard", extra={"project_id": project_id, "error": str(error)})

    def announce(self, project_id: str, answer_id: str) -> None:
        """Tell the process that writes the answer; return at once."""
        if self._is_here(answer_id):
            self._wake()
            return
        # In a task: a Redis that hangs must not delay the response.
        task = asyncio.create_task(self._announce(project_id, answer_id), name="announce stop")
        self._announcing.add(task)
        task.add_done_callback(self._announcing.discard)

    async def _announce(self, project_id: str, answer_id: str) -> None:
        try:
            await self._tails.lanes.signal(project_id, ANSWER_STOP, answer_id.encode())
        except StreamsError as error:
            _log.debug("stop not announced", extra={"project_id": project_id, "error": str(error)})

    def _noticed(self, _: str, event: str, data: bytes) -> None:
        if event == ANSWER_STOP and self._is_here(data.decode()):
            self._wake()

    async def close(self) -> None:
        """Send and receive nothing more."""
        await end([*self._announcing, *self._listening.values()])
