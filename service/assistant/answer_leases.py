"""The leases of answers: renew those of this process, take over those of processes that died.

What an answer says and how it is ended is in `answer_writer.py`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection

from streams.answers.answer_rows import Answer
from streams.eventlog import EventLog
from streams.model.errors import StreamsError, Unavailable

_log = logging.getLogger(__name__)

_RETRY_S = 0.5


class AnswerLeases:
    """Renews leases for `worker_id`. `running` returns the ids of the answers written here."""

    def __init__(
        self,
        log: EventLog,
        worker_id: str,
        *,
        lease_s: float,
        running: Callable[[], Collection[str]],
        fail: Callable[[Answer, str], Awaitable[None]],
    ) -> None:
        self._answers = log.answers
        self._worker_id = worker_id
        self._lease_s = lease_s
        self._running = running
        self._fail = fail

    async def run(self) -> None:
        """Renew and take over until cancelled.

        After an outage of Postgres the leases of living processes have run out too. So nothing is
        taken over until Postgres has answered for the length of a lease: the owners renew first.
        """
        loop = asyncio.get_running_loop()
        pause_s = self._lease_s / 3
        # Start of the current run of successful queries; None while Postgres is away.
        available_since_s: float | None = loop.time()
        while True:
            await asyncio.sleep(pause_s)
            pause_s = self._lease_s / 3
            try:
                async with asyncio.timeout(self._lease_s):
                    await self._renew()
                if available_since_s is None:
                    available_since_s = loop.time()
                if loop.time() - available_since_s >= self._lease_s:
                    await self._take_over()
            except (Unavailable, TimeoutError):
                # No other process can take over meanwhile. Retry soon, to renew before they can.
                available_since_s = None
                pause_s = min(_RETRY_S, pause_s)
            except StreamsError as error:
                available_since_s = None
                _log.warning("answer leases not renewed", extra={"error": str(error)})

    async def _take_over(self) -> None:
        for answer in await self._answers.take_over(self._worker_id, lease_s=self._lease_s):
            await self._fail(answer, "the process that was answering has died")

    async def _renew(self) -> None:
        running = list(self._running())
        renewed = await self._answers.renew(running, self._worker_id, lease_s=self._lease_s)
        for answer_id in running:
            if answer_id not in renewed and answer_id in self._running():
                # It ended just now, or another process ended it: `answers.end` then does nothing.
                _log.debug("answer not ours", extra={"answer_id": answer_id})
