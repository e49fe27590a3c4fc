"""A window and a log that read from lists, for `LowerTiers`; its decisions are not imitated here.

A test may run something between a read's start and its result (`meanwhile`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

from streams.log.database import Database
from streams.log.log import PAGE_BYTES, Log
from streams.model.errors import LogUnavailable, WindowUnavailable
from streams.model.events import Message
from streams.model.ids import MAX_SEQ, EntryId
from streams.runtime.health import Health
from streams.runtime.observer import Observer
from streams.tail.lower_tiers import LowerTiers
from streams.window.redis_client import RedisClient
from streams.window.window import Entry, Window
from tests.support.entries import entry, message


class FakeProject:
    """One project's log and Redis stream as lists; the stream has the last `window_messages`."""

    def __init__(self, *, window_messages: int = 200) -> None:
        self.head = 0
        self.stream: list[EntryId] = []
        self.redis_answers = True
        self.postgres_answers = True
        self.meanwhile: Callable[[], None] = _nothing
        self.window_reads = 0
        self.log_reads = 0
        self._window_messages = window_messages
        self._given: dict[int, int] = {}

    def append(self, count: int = 1) -> None:
        """Commit and publish `count` messages."""
        for _ in range(count):
            self.head += 1
            self.stream.append(EntryId(self.head, 0))
        low = EntryId(self.head - self._window_messages + 1, 0)
        self.stream = [each for each in self.stream if each >= low]

    def append_transient(self) -> EntryId:
        """Append a transient entry to the stream and return its id."""
        seq = self.stream[-1].seq if self.stream else self.head
        self._given[seq] = self._given.get(seq, 0) + 1
        self.stream.append(EntryId(seq, self._given[seq]))
        return self.stream[-1]

    def flush(self) -> None:
        """Drop the stream, as a Redis that lost its data."""
        self.stream = []

    def tiers(self) -> LowerTiers:
        """Return real `LowerTiers` that read this project's lists."""
        return LowerTiers(_ListWindow(self), _ListLog(self), Health(Observer()))


def _nothing() -> None:
    pass


class _ListWindow(Window):
    def __init__(self, project: FakeProject) -> None:
        super().__init__(cast("RedisClient", None))
        self._project = project

    async def read_after(self, project_id: str, after: EntryId, *, count: int) -> list[Entry]:
        project = self._project
        project.window_reads += 1
        project.meanwhile()
        if not project.redis_answers:
            raise WindowUnavailable("away")
        found = [entry(each) for each in project.stream if each > after][:count]
        project.meanwhile()
        return found


class _ListLog(Log):
    def __init__(self, project: FakeProject) -> None:
        super().__init__(cast("Database", None))
        self._project = project

    async def read(
        self,
        project_id: str,
        *,
        after: int = 0,
        before: int = MAX_SEQ,
        limit: int = 200,
        descending: bool = False,
        max_bytes: int = PAGE_BYTES,
    ) -> list[Message]:
        assert not descending
        project = self._project
        project.log_reads += 1
        project.meanwhile()
        if not project.postgres_answers:
            raise LogUnavailable("away")
        seqs: Sequence[int] = range(after + 1, min(before, project.head + 1))[:limit]
        found = [message(seq) for seq in seqs]
        project.meanwhile()
        return found
