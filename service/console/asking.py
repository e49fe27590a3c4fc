"""Asks a store for the console, in bounded time; what does not answer is named, not raised."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Literal, TypeVar

import msgspec

from streams.eventlog import EventLog
from streams.model.errors import StreamsError
from streams.model.shards import shard_of
from streams.runtime.health import DOES_NOT_ANSWER

T = TypeVar("T")

Store = Literal["postgres", "redis"]

# The page asks every second or two: an answer that comes later is of no use.
_TIMEOUT_S = 1.0
_AT_ONCE = 2


class Missing(msgspec.Struct, frozen=True):
    """A store that did not answer, so that its part of the view is missing, and why."""

    part: Store
    why: str


class Turns:
    """How many questions of all views are with a store at the same time.

    Posts and streams use the same connections: a console that asks a slow store for many projects
    must not take them all.
    """

    def __init__(self) -> None:
        self.of: dict[Store, asyncio.Semaphore] = {
            "postgres": asyncio.Semaphore(_AT_ONCE),
            "redis": asyncio.Semaphore(_AT_ONCE),
        }


class Stores:
    """The two stores, for the questions of one view.

    A store that is known not to answer is not asked, and one that failed is not asked again: a
    view costs a dead store's timeout once at most. `missing` names them.
    """

    def __init__(self, log: EventLog, turns: Turns) -> None:
        self.missing: list[Missing] = []
        self._log = log
        self._turns = turns

    async def postgres(self, question: Callable[[], Awaitable[T]]) -> T | None:
        """Return Postgres's answer; None when there is none."""
        down = None
        if not self._log.health.postgres_up:
            down = self._log.postgres.problem or DOES_NOT_ANSWER
        return await self._ask("postgres", down, question)

    async def redis(self, project_id: str, question: Callable[[], Awaitable[T]]) -> T | None:
        """Return the answer of the Redis server that has the project; None when there is none."""
        down = None
        if not self._log.health.can_read(shard_of(project_id)):
            down = self._log.health.redis_problem or DOES_NOT_ANSWER
        return await self._ask("redis", down, question)

    def lacks(self, store: Store) -> bool:
        """Tell whether the store left a question without an answer."""
        return any(each.part == store for each in self.missing)

    async def _ask(
        self, store: Store, down: str | None, question: Callable[[], Awaitable[T]]
    ) -> T | None:
        if self.lacks(store):
            return None
        why = down
        if why is None:
            try:
                async with asyncio.timeout(_TIMEOUT_S), self._turns.of[store]:
                    return await question()
            except TimeoutError:
                why = f"no answer within {_TIMEOUT_S:.0f} s"
            except StreamsError as error:
                why = str(error)
        self.missing.append(Missing(store, why))
        return None
