"""A member that stops some answers at a random moment, and repeats each stop until it is answered.

`answer_checker.py` judges the records.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass

import httpx
import msgspec

from tests.support.answer_history import StopRequest
from tests.support.persistent_post import post_until_answered

_TIMEOUT_S = 3.0


@dataclass
class Stop:
    """One stop: whether the service has said that it counts."""

    message_id: str
    accepted: bool = False


class AnswerStopper:
    """Stops a share of the answers that it is told of, at most `latest_s` later."""

    def __init__(
        self,
        user_id: str,
        base_urls: Sequence[str],
        project_id: str,
        *,
        seed: int,
        share: float = 0.4,
        latest_s: float = 0.8,
    ) -> None:
        self.stops: list[Stop] = []
        self._user_id = user_id
        self._base_urls = list(base_urls)
        self._project_id = project_id
        self._random = random.Random(f"{seed}-{user_id}")
        self._share = share
        self._latest_s = latest_s
        self._considered: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def consider(self, message_id: str) -> None:
        """Stop this answer after a moment, or leave it alone."""
        if message_id in self._considered:
            return
        self._considered.add(message_id)
        if self._random.random() < self._share:
            after_s = self._random.uniform(0.0, self._latest_s)
            first_url = self._random.randrange(len(self._base_urls))
            self._tasks.add(asyncio.create_task(self._stop(message_id, after_s, first_url)))

    async def finish(self, *, timeout_s: float) -> None:
        """Wait until every stop was answered. Raises the error of one, or TimeoutError."""
        async with asyncio.timeout(timeout_s):
            await asyncio.gather(*self._tasks)

    async def close(self) -> None:
        """Give up what was not answered."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def requests(self) -> list[StopRequest]:
        """Return every stop that was requested, answered or not."""
        return [StopRequest(stop.message_id, self._user_id, stop.accepted) for stop in self.stops]

    async def _stop(self, message_id: str, after_s: float = 0.0, first_url: int = 0) -> None:
        """Stop an answer, with as many attempts as it takes, at one process after the other."""
        await asyncio.sleep(after_s)
        stop = Stop(message_id)
        self.stops.append(stop)
        target = f"/v1/projects/{self._project_id}/answers/{message_id}/stop"
        urls = itertools.islice(itertools.cycle(self._base_urls), first_url, None)
        async with httpx.AsyncClient(verify=False, trust_env=False, timeout=_TIMEOUT_S) as http:
            response = await post_until_answered(http, urls, target, self._user_id)
        stop.accepted = _is_accepted(response)


class _Receipt(msgspec.Struct):
    status: str


def _is_accepted(response: httpx.Response) -> bool:
    """Tell whether the stop counts: 202, or 200 for one that an earlier attempt had stopped."""
    status = msgspec.json.decode(response.content, type=_Receipt).status
    return response.status_code == 202 or status == "stopped"
