"""Keeps the answers of this process, and takes over those that are not kept.

Once or twice a second: renews the leases of the answers that are written here and learns which of
them were asked to stop. What is written is stored by `piece_store.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Collection

from streams.answers.answer_rows import AnswerRows
from streams.answers.answer_values import Answer
from streams.answers.open_answer import OpenAnswer
from streams.model.errors import StreamsError, Unavailable
from streams.runtime.owned_tasks import end

_log = logging.getLogger(__name__)

# Bounds the time until a stop is noticed of which Redis did not tell.
RENEW_EVERY_S = 0.5
# Without answers of its own a process only looks for those of others.
_LOOK_EVERY_S = 1.0
_RETRY_S = 0.5
# A worker that was asked to stop and did not in this time is not waited for.
STOP_PATIENCE_S = 2.0
_TAKEN_AT_ONCE = 20


class AnswerLeases:
    """Keeps the answers in `open_answers` for `worker_id`; ends those of others by `fail`."""

    def __init__(
        self,
        rows: AnswerRows,
        worker_id: str,
        *,
        lease_s: float,
        open_answers: Callable[[], Collection[OpenAnswer]],
        fail: Callable[[Answer], Awaitable[None]],
    ) -> None:
        self._rows = rows
        self._worker_id = worker_id
        self._lease_s = lease_s
        self._open = open_answers
        self._fail = fail
        self._wake = asyncio.Event()
        self._failing: set[asyncio.Task[None]] = set()

    def wake(self) -> None:
        """Do the next round now: an answer was begun, or asked to stop."""
        self._wake.set()

    async def run(self) -> None:
        """Keep and take over until cancelled.

        After an outage of Postgres the leases of living processes have run out too. So nothing is
        taken over until Postgres has answered for the length of a lease: the owners renew first.
        """
        loop = asyncio.get_running_loop()
        pause_s = self._pause_s()
        # Start of the current run of successful queries; None while Postgres is away.
        available_since_s: float | None = loop.time()
        try:
            while True:
                await self._sleep(pause_s)
                try:
                    async with asyncio.timeout(self._lease_s):
                        await self._keep()
                    if available_since_s is None:
                        available_since_s = loop.time()
                    if loop.time() - available_since_s >= self._lease_s:
                        await self._take_over()
                    pause_s = self._pause_s()
                except (Unavailable, TimeoutError):
                    # Nobody can take over meanwhile. Retry soon, to renew before they can.
                    available_since_s = None
                    pause_s = min(_RETRY_S, self._pause_s())
                except StreamsError as error:
                    available_since_s = None
                    _log.warning("answer leases not renewed", extra={"error": str(error)})
        finally:
            await end(self._failing)

    def _pause_s(self) -> float:
        every_s = RENEW_EVERY_S if self._open() else _LOOK_EVERY_S
        return min(self._lease_s / 3, every_s)

    async def _sleep(self, pause_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await self._wake.wait()
        self._wake.clear()

    async def _keep(self) -> None:
        """Renew the leases, and interrupt the answers that must end."""
        # Also without answers: the query tells since when Postgres answers.
        kept = list(self._open())
        owned = await self._rows.renew(
            [each.answer.id for each in kept], self._worker_id, lease_s=self._lease_s
        )
        for each in kept:
            answer_id = each.answer.id
            if answer_id not in owned:
                # It ended just now, or another process took it over: ending it does nothing.
                _log.debug("answer not ours", extra={"answer_id": answer_id})
                each.interrupt()
            elif owned[answer_id] is not None:
                each.interrupt()

    async def _take_over(self) -> None:
        room = _TAKEN_AT_ONCE - len(self._failing)
        if room <= 0:
            return
        taken = await self._rows.take_over(
            self._worker_id, lease_s=self._lease_s, stop_patience_s=STOP_PATIENCE_S, limit=room
        )
        for answer in taken:
            # In a task: a project whose row is locked must not delay the renewals.
            task = asyncio.create_task(self._end_taken(answer), name="end answer")
            self._failing.add(task)
            task.add_done_callback(self._failing.discard)

    async def _end_taken(self, answer: Answer) -> None:
        try:
            await self._fail(answer)
        except StreamsError as error:
            # Taken over again once this lease runs out too.
            _log.warning(
                "answer not ended", extra={"project_id": answer.project_id, "error": str(error)}
            )
