"""Single flight: one fetch per key at a time, independent of who asked first."""

from __future__ import annotations

import asyncio

import pytest

from streams.runtime.single_flight import SingleFlight


class _Source:
    """Counts fetches; each waits until `answer` is set."""

    def __init__(self) -> None:
        self.fetches = 0
        self.answer = asyncio.Event()

    async def fetch(self) -> int:
        self.fetches += 1
        await self.answer.wait()
        return self.fetches

    async def fail(self) -> int:
        await self.answer.wait()
        raise LookupError("no such thing")


async def test_requests_at_the_same_time_share_a_fetch() -> None:
    """A thousand equal requests cost one read."""
    source, flight = _Source(), SingleFlight[str, int]("fetch")
    requests = [asyncio.create_task(flight.run("a", source.fetch)) for _ in range(10)]
    await asyncio.sleep(0)
    source.answer.set()
    assert await asyncio.gather(*requests) == [1] * 10


async def test_a_later_request_fetches_again() -> None:
    """Nothing is cached once the fetch is done."""
    source, flight = _Source(), SingleFlight[str, int]("fetch")
    source.answer.set()
    assert [await flight.run("a", source.fetch) for _ in range(2)] == [1, 2]


async def test_other_keys_do_not_share() -> None:
    """A fetch is shared by equal requests only."""
    source, flight = _Source(), SingleFlight[str, int]("fetch")
    requests = [asyncio.create_task(flight.run(key, source.fetch)) for key in "ab"]
    await asyncio.sleep(0)
    source.answer.set()
    await asyncio.gather(*requests)
    assert source.fetches == 2


async def test_a_cancelled_requester_does_not_end_the_fetch() -> None:
    """The others still get the result."""
    source, flight = _Source(), SingleFlight[str, int]("fetch")
    leaving = asyncio.create_task(flight.run("a", source.fetch))
    staying = asyncio.create_task(flight.run("a", source.fetch))
    await asyncio.sleep(0)
    leaving.cancel()
    source.answer.set()
    assert await staying == 1
    assert leaving.cancelled()


async def test_every_requester_gets_the_error() -> None:
    """A fetch that fails fails for all who share it."""
    source, flight = _Source(), SingleFlight[str, int]("fetch")
    requests = [asyncio.create_task(flight.run("a", source.fail)) for _ in range(3)]
    await asyncio.sleep(0)
    source.answer.set()
    for request in requests:
        with pytest.raises(LookupError):
            await request
    assert flight.tasks() == []
