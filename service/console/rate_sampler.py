"""Samples the tails once a second while a console asks, so that it can show rates.

Nobody asks as a rule: then nothing runs and nothing is kept. The arithmetic is in `rates.py`.
"""

from __future__ import annotations

import asyncio
import logging

from service.console.rates import Rates
from streams.runtime.owned_tasks import end
from streams.tail.registry import TailRegistry

_log = logging.getLogger(__name__)

EVERY_S = 1.0
LASTS_S = 90.0


class RateSampler:
    """Keeps the rates of the projects with readers here, until 90 s after the last question."""

    def __init__(self, tails: TailRegistry) -> None:
        self._tails = tails
        self._rates = Rates()
        self._asked_at_s = 0.0
        self._task: asyncio.Task[None] | None = None

    def rates(self) -> Rates:
        """Return the rates; those of the first seconds are averages over these seconds."""
        self._asked_at_s = asyncio.get_running_loop().time()
        if self._task is None:
            self._task = asyncio.create_task(self._sample(), name="rates of the console")
            self._task.add_done_callback(self._ended)
        return self._rates

    async def _sample(self) -> None:
        loop = asyncio.get_running_loop()
        while loop.time() - self._asked_at_s < LASTS_S:
            tails = self._tails.all()
            self._rates.sample(loop.time(), ((tail.project_id, tail.last_seq) for tail in tails))
            await asyncio.sleep(EVERY_S)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._task = None
        self._rates.clear()
        if not task.cancelled() and task.exception() is not None:
            # The next question starts another.
            _log.error("the console's rates ended", exc_info=task.exception())

    async def close(self) -> None:
        """End the sampling."""
        if self._task is not None:
            await end([self._task])
