"""How fast a worker outside may send pieces of one answer to this process. Pure but for the wait.

A request that comes too early waits for its turn: the worker slows down by itself. Ownership of the
answer is not known here, so each caller has a pace of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec

from service.http.api_errors import rate_limited
from streams.model.lru_map import LruMap

REQUESTS_PER_SECOND = 20
MOST_WAITING = 8
# How far parts that do not join put the next turn off at most.
_MOST_BEHIND_S = 2.0
_REMEMBERED = 10_000


class _Pace(msgspec.Struct):
    """When the next request's turn is, and how many wait for theirs."""

    next_s: float
    waiting: int = 0


class AnswerPace:
    """Gives turns, in the order of arrival, `REQUESTS_PER_SECOND` to a caller and answer."""

    def __init__(
        self,
        clock: Callable[[], float],
        refused: Callable[[], None],
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`clock` returns monotonic seconds; `refused` is called with each request that is."""
        self._clock = clock
        self._refused = refused
        self._sleep = sleep
        self._paces = LruMap[tuple[str, str], _Pace](_REMEMBERED)

    async def turn(self, user_id: str, answer_id: str) -> None:
        """Return when a request may go on.

        Raises:
            ApiError: 429, too many requests of this answer wait.
        """
        now_s = self._clock()
        pace = self._paces.get((user_id, answer_id))
        if pace is None:
            pace = _Pace(now_s)
            self._paces.put((user_id, answer_id), pace)
        if pace.waiting >= MOST_WAITING:
            self._refused()
            raise rate_limited(pace.next_s - now_s, "Too many requests for this answer")
        turn_s = max(now_s, pace.next_s)
        pace.next_s = turn_s + 1 / REQUESTS_PER_SECOND
        if turn_s > now_s:
            pace.waiting += 1
            try:
                await self._sleep(turn_s - now_s)
            finally:
                pace.waiting -= 1

    def count(self, user_id: str, answer_id: str, stored: int) -> None:
        """Count a request as the number of pieces that it brought into the stream."""
        pace = self._paces.peek((user_id, answer_id))
        if pace is not None and stored > 1:
            next_s = pace.next_s + (stored - 1) / REQUESTS_PER_SECOND
            pace.next_s = max(pace.next_s, min(next_s, self._clock() + _MOST_BEHIND_S))
