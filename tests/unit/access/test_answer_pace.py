"""`service/access/answer_pace.py`, in virtual time."""

from __future__ import annotations

import asyncio

import pytest

from service.access.answer_pace import MOST_WAITING, REQUESTS_PER_SECOND, AnswerPace
from service.http.api_errors import ApiError

STEP_S = 1 / REQUESTS_PER_SECOND


class _Time:
    """A clock that a wait moves on; waits that do not end yet are let go by `let_go`."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.waits_s: list[float] = []
        self.refused = 0
        self._is_let_go = asyncio.Event()
        self._is_let_go.set()

    def pace(self) -> AnswerPace:
        return AnswerPace(lambda: self.now_s, self._refuse, sleep=self._sleep)

    def hold(self) -> None:
        self._is_let_go.clear()

    def let_go(self) -> None:
        self._is_let_go.set()

    async def _sleep(self, seconds: float) -> None:
        self.waits_s.append(seconds)
        await self._is_let_go.wait()

    def _refuse(self) -> None:
        self.refused += 1


async def test_requests_in_time_do_not_wait() -> None:
    """§4: 20 a second are taken as they come."""
    time = _Time()
    pace = time.pace()
    for _ in range(50):
        await pace.turn("bot", "a")
        time.now_s += STEP_S
    assert time.waits_s == []


async def test_requests_that_come_faster_wait_for_their_turn() -> None:
    """§4: each one step after the one before."""
    time = _Time()
    pace = time.pace()
    for _ in range(4):
        await pace.turn("bot", "a")
    assert time.waits_s == pytest.approx([STEP_S, 2 * STEP_S, 3 * STEP_S])


async def test_few_requests_of_an_answer_wait() -> None:
    """Beyond them 429 with Retry-After; once they had their turn, others are taken again."""
    time = _Time()
    pace = time.pace()
    time.hold()
    tasks = [asyncio.create_task(pace.turn("bot", "a")) for _ in range(1 + MOST_WAITING)]
    await asyncio.sleep(0)
    with pytest.raises(ApiError) as refused:
        await pace.turn("bot", "a")
    assert (refused.value.status, time.refused) == (429, 1)
    assert refused.value.headers() == {"Retry-After": "1"}
    time.let_go()
    await asyncio.gather(*tasks)
    await pace.turn("bot", "a")
    assert time.refused == 1


async def test_a_request_that_is_cancelled_does_not_count_as_waiting() -> None:
    """A client that goes away leaves its place to others."""
    time = _Time()
    pace = time.pace()
    time.hold()
    tasks = [asyncio.create_task(pace.turn("bot", "a")) for _ in range(1 + MOST_WAITING)]
    await asyncio.sleep(0)
    tasks[-1].cancel()
    await asyncio.wait([tasks[-1]])
    time.let_go()
    await pace.turn("bot", "a")
    await asyncio.gather(*tasks, return_exceptions=True)
    assert time.refused == 0


async def test_callers_and_answers_do_not_slow_each_other_down() -> None:
    """Who sends pieces for another's answer delays nobody but itself."""
    time = _Time()
    pace = time.pace()
    for user_id, answer_id in (("bot", "a"), ("mallory", "a"), ("bot", "b")):
        await pace.turn(user_id, answer_id)
    assert time.waits_s == []


async def test_parts_that_do_not_join_count_each() -> None:
    """§5: on average 20 pieces a second enter the stream; the next turn is at most 2 s away."""
    time = _Time()
    pace = time.pace()
    await pace.turn("bot", "a")
    pace.count("bot", "a", 5)
    await pace.turn("bot", "a")
    for _ in range(3):
        pace.count("bot", "a", 200)
    await pace.turn("bot", "a")
    assert time.waits_s == pytest.approx([5 * STEP_S, 2.0])
