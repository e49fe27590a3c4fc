"""The load during a fault: writers, a build requester, and clients.

Answers are in `answer_load.py`. Faults are in `*_faults.py`, and `verdict.py` judges.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from tests.faults.answer_load import ANSWER_USERS, AnswerLoad
from tests.faults.world import World
from tests.support.api import Api
from tests.support.build_requester import BuildRequester
from tests.support.history import ClientHistory
from tests.support.signing import token
from tests.support.sse_client import SseClient
from tests.support.writer import Writer

PROJECT = "Fault_project-1"
OWNER = "owner"
BUILD_REQUESTER = "build-requester"
# A user may have 10 streams in a process. 3 keep below it even when all are in one process that has
# not yet noticed the end of earlier ones.
_STREAMS_OF_A_READER = 3
_MIN_READERS = 8
POSTS_PER_S_OF_A_WRITER = 40.0  # a user may post 50
_SILENCE_LIMIT_S = 3.0  # of those that watch for heartbeats, one a second here
_SLOW_BYTES_PER_S = 200_000.0


@dataclass(frozen=True)
class Size:
    """How much load: `clients` counts steady clients, `posts_per_s` all writers together.

    `builds_per_s` and `answers_per_s` are requested in addition. No writer may post more than
    `POSTS_PER_S_OF_A_WRITER`.
    """

    clients: int = 6
    slow: int = 1
    stalled: int = 1
    writers: int = 4
    posts_per_s: float = 80.0
    builds_per_s: float = 2.0
    answers_per_s: float = 1.0
    impatience: float = 0.02
    filler_bytes: int = 0


class Load:
    """Writers and clients of one project over all service processes.

    Steady clients connect before the first post: some from seq 0, some live from head; half of them
    watch heartbeats. Others are slow, or stop reading until `settle()`. `join()` adds a client that
    reads from the beginning of the log.
    """

    def __init__(self, world: World, size: Size, *, seed: int) -> None:
        self.size = size
        self.writers: list[Writer] = []
        self.build_requester: BuildRequester | None = None  # one of the writers
        self.answers: AnswerLoad | None = None  # its requester is one of the writers
        self.steady: list[SseClient] = []
        self.others: list[SseClient] = []
        self.began_s = 0.0
        self.ended_s = 0.0
        self._world = world
        self._seed = seed
        self._joined = 0
        self._readers = _readers(size)
        self._next_reader = itertools.cycle(self._readers)
        self._stack = AsyncExitStack()

    @property
    def clients(self) -> list[SseClient]:
        """All clients."""
        return [*self.steady, *self.others]

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            async with Api(self._world.services[0].url, OWNER) as api:
                await api.create_project(PROJECT)
                for number in range(self.size.writers):
                    await api.add_member(PROJECT, f"writer-{number}")
                for user_id in (BUILD_REQUESTER, *ANSWER_USERS, *self._readers):
                    await api.add_member(PROJECT, user_id)
            self._stack = stack
            for number in range(self.size.clients):
                self.steady.append(
                    await self._open(
                        f"steady-{number}",
                        number,
                        from_seq=None if number % 3 == 2 else 0,
                        silence_limit_s=_SILENCE_LIMIT_S if number % 2 == 0 else None,
                    )
                )
            for number in range(self.size.slow):
                self.others.append(
                    await self._open(f"slow-{number}", number, slow_bytes_per_s=_SLOW_BYTES_PER_S)
                )
            for number in range(self.size.stalled):
                self.others.append(await self._open(f"stalled-{number}", number, stall_after=10))
            await asyncio.gather(*(client.wait_live(timeout_s=20) for client in self.clients))
            await self._start_writers()
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._stack.aclose()

    async def join(self) -> SseClient:
        """Add a client that reads from the beginning of the log."""
        self._joined += 1
        client = await self._open(f"late-{self._joined}", self._joined)
        self.others.append(client)
        return client

    async def wait_acknowledged(self, more: int, *, timeout_s: float = 20.0) -> None:
        """Wait until `more` posts are acknowledged. Raises TimeoutError otherwise."""
        wanted = self.acknowledged() + more
        async with asyncio.timeout(timeout_s):
            while self.acknowledged() < wanted:
                for writer in self.writers:
                    writer.raise_if_failed()
                await asyncio.sleep(0.01)

    def acknowledged(self) -> int:
        """Return how many posts were acknowledged so far."""
        return sum(len(writer.acknowledgements) for writer in self.writers)

    def histories(self) -> list[ClientHistory]:
        """Return all clients' histories; slow and stalled clients may fall behind the window."""
        steady = [client.history() for client in self.steady]
        others = [client.history(keeps_up=False) for client in self.others]
        return [*steady, *others]

    async def stop_writing(self, *, timeout_s: float) -> list[str]:
        """Stop every writer after its current post; return the errors of those that could not."""
        finished = await asyncio.gather(
            *(writer.finish(timeout_s=timeout_s) for writer in self.writers),
            return_exceptions=True,
        )
        self.ended_s = time.monotonic()
        assert self.answers is not None
        return [
            f"{writer.name}: {type(error).__name__}: {error}"
            for writer, error in zip(self.writers, finished, strict=True)
            if isinstance(error, Exception)
        ] + await self.answers.finish(timeout_s=timeout_s)

    async def settle(self, head: int, *, timeout_s: float) -> list[str]:
        """Wait until every client has reached `head`; return those that have not."""
        for client in self.others:
            client.resume()
        deadline_s = time.monotonic() + timeout_s
        waits = [
            client.wait_seq(head, timeout_s=max(0.1, deadline_s - time.monotonic()))
            for client in self.clients
        ]
        return [
            f"{client.name} at {client.highest_seq} of {head}: {error}"
            for client, error in zip(
                self.clients, await asyncio.gather(*waits, return_exceptions=True), strict=True
            )
            if isinstance(error, BaseException)
        ]

    async def _start_writers(self) -> None:
        self.began_s = time.monotonic()
        for number in range(self.size.writers):
            writer = Writer(
                f"writer-{number}",
                self._world.client_urls,
                PROJECT,
                f"writer-{number}",
                posts_per_s=self.size.posts_per_s / self.size.writers,
                seed=self._seed,
                impatience=self.size.impatience,
                filler_bytes=self.size.filler_bytes,
                timeout_s=3.0,
                first_url=number,
            )
            self.writers.append(await self._stack.enter_async_context(writer))
        self.build_requester = BuildRequester(
            BUILD_REQUESTER,
            self._world.client_urls,
            PROJECT,
            BUILD_REQUESTER,
            builds_per_s=self.size.builds_per_s,
            seed=self._seed,
            impatience=self.size.impatience,
            timeout_s=3.0,
        )
        self.writers.append(await self._stack.enter_async_context(self.build_requester))
        self.answers = AnswerLoad(
            self._world,
            PROJECT,
            answers_per_s=self.size.answers_per_s,
            questions=lambda: [ack.message_id for ack in self.writers[0].acknowledgements],
            seed=self._seed,
            impatience=self.size.impatience,
        )
        await self.answers.start(self._stack)
        self.writers.append(self.answers.requester)

    async def _open(
        self,
        name: str,
        first_url: int,
        *,
        from_seq: int | None = 0,
        silence_limit_s: float | None = _SILENCE_LIMIT_S,
        slow_bytes_per_s: float | None = None,
        stall_after: int | None = None,
    ) -> SseClient:
        client = SseClient(
            name,
            self._world.client_urls,
            PROJECT,
            token(next(self._next_reader)),
            from_seq=from_seq,
            silence_limit_s=silence_limit_s,
            slow_bytes_per_s=slow_bytes_per_s,
            stall_after=stall_after,
            first_url=first_url,
        )
        return await self._stack.enter_async_context(client)


def _readers(size: Size) -> list[str]:
    streams = size.clients + size.slow + size.stalled
    count = max(_MIN_READERS, streams // _STREAMS_OF_A_READER)
    return [f"reader-{number}" for number in range(count)]


def longest_silence_s(clients: Sequence[SseClient], began_s: float, ended_s: float) -> float:
    """Return the longest time without a message at any client, between two moments."""
    longest = 0.0
    for client in clients:
        times = [event.at_s for event in client.events("message.new", "message.replay")]
        marks = [began_s, *(at for at in times if began_s < at < ended_s), ended_s]
        longest = max([longest, *(b - a for a, b in itertools.pairwise(marks))])
    return longest


def longest_delay_s(clients: Sequence[SseClient], acknowledged: dict[int, float]) -> float:
    """Return the longest time from a post's acknowledgement to its first arrival at a client."""
    longest = 0.0
    for client in clients:
        seen: set[int] = set()
        for event in client.events("message.new", "message.replay"):
            seq = int(event.event_id or 0)
            if seq in acknowledged and seq not in seen:
                seen.add(seq)
                longest = max(longest, event.at_s - acknowledged[seq])
    return longest
