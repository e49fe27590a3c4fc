"""A database with an event loop of its own: a state machine of hypothesis is not asynchronous."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from streams.log.database import Database

T = TypeVar("T")


class LoopedDatabase:
    """A pool of connections, and `run` for what is awaited with it."""

    def __init__(self, url: str, *, size: int = 4) -> None:
        self.runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self.database = self.run(Database.open(url, size=size))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run work to its end and return its result."""
        return self.runner.run(work)

    def close(self) -> None:
        """Close the connections and the loop."""
        self.run(self.database.close())
        self.runner.close()
