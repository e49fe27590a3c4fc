"""Group commit: appends that arrive while a commit is under way go together in the next one.

A lone append waits for nothing. After a commit of several, the next one waits a few milliseconds
for as many again: callers that wait for their answers are back by then and wait no longer, and a
steady rate gives fewer, larger commits. Each committer has its own projects, so that several
commits are in flight at once and the messages of one project are published in order.
"""

from __future__ import annotations

import asyncio
import logging
import zlib
from collections import deque
from collections.abc import Callable, Sequence

from streams.errors import (
    Closed,
    IdempotencyMismatch,
    LogUnavailable,
    Overloaded,
    StreamsError,
    Unavailable,
)
from streams.events import NewMessage, PreparedMessage, encode, prepare
from streams.health import Health
from streams.log import Appended, Log, Unit
from streams.observer import Observer

_log = logging.getLogger(__name__)

MAX_BATCH = 500
_MAX_WAITING_MESSAGES = 5000
# Each commit has the database's own timeout; this one is for those that wait behind it.
_QUEUE_TIMEOUT_S = 10.0
# How long after a commit of several the next one may wait for as many.
GATHER_S = 0.008

Publish = Callable[[str, int, Sequence[bytes]], None]
_Key = tuple[str, str, str]


class _Waiting:
    """One append under way: its unit, who waits for it, and the ids that must not meet."""

    __slots__ = ("future", "keys", "since_s", "unit")

    def __init__(self, unit: Unit, loop: asyncio.AbstractEventLoop) -> None:
        self.unit = unit
        self.since_s = loop.time()
        self.future: asyncio.Future[list[Appended]] = loop.create_future()
        self.keys: list[_Key] = [
            (unit.project_id, message.source.user_id, message.source.client_msg_id)
            for message in unit.messages
            if message.source.client_msg_id is not None
        ]


class Appender:
    """Appends messages to the log and hands what was committed to `publish`.

    `before_publish` is called with the number of commits so far, after a commit and before its
    publishing: a fault point for tests.
    """

    def __init__(
        self,
        log: Log,
        publish: Publish,
        health: Health,
        observer: Observer,
        *,
        committers: int = 2,
        before_publish: Callable[[int], None] | None = None,
    ) -> None:
        self._committers = [
            _Committer(log, publish, health, observer, before_publish) for _ in range(committers)
        ]
        self._closed = False

    def submit(self, project_id: str, message: NewMessage) -> asyncio.Future[list[Appended]]:
        """Begin to append one message; the future is done when it is committed.

        Raises `InvalidInput`, `PayloadTooLarge` and `Overloaded` at once; see `append`.
        """
        return self._committer(project_id).submit(Unit(project_id, (prepare(message),)))

    async def append(self, project_id: str, messages: Sequence[NewMessage]) -> list[Appended]:
        """Append messages in order, all or none; return when they are committed.

        The commit goes on when the caller is cancelled. Repeats of a client_msg_id, within the
        batch too, give the first result.

        Raises:
            InvalidInput, PayloadTooLarge: before anything is written.
            IdempotencyMismatch: a client_msg_id stands for another content; nothing is written.
            ProjectNotFound: there is no such project.
            LogUnavailable: Postgres does not answer; the outcome is unknown.
            Overloaded: too many appends wait in this process.
        """
        if len(messages) == 1:
            return await self.submit(project_id, messages[0])
        committer = self._committer(project_id)
        unit, places = _distinct(project_id, [prepare(message) for message in messages])
        if not unit.messages:
            return []
        appended = await committer.submit(unit)
        if len(places) == len(appended):
            return appended
        seen: set[int] = set()
        results = []
        for place in places:
            first = appended[place]
            results.append(Appended(first.message, True) if place in seen else first)
            seen.add(place)
        return results

    async def run(self) -> None:
        """Commit for ever."""
        async with asyncio.TaskGroup() as group:
            for committer in self._committers:
                group.create_task(committer.run())

    async def drained(self) -> None:
        """Refuse new appends and wait until those under way are committed."""
        self._closed = True
        for committer in self._committers:
            await committer.drained()

    def _committer(self, project_id: str) -> _Committer:
        if self._closed:
            raise Closed("the log is closed")
        return self._committers[zlib.crc32(project_id.encode()) % len(self._committers)]


def _distinct(project_id: str, prepared: Sequence[PreparedMessage]) -> tuple[Unit, list[int]]:
    """Take repeats within a batch out; give each message its place among those that are left."""
    first: dict[tuple[str, str], int] = {}
    kept: list[PreparedMessage] = []
    places = []
    for index, message in enumerate(prepared):
        client_msg_id = message.source.client_msg_id
        if client_msg_id is not None:
            key = (message.source.user_id, client_msg_id)
            place = first.setdefault(key, len(kept))
            if place < len(kept):
                if kept[place].digest != message.digest:
                    raise IdempotencyMismatch(client_msg_id, index=index)
                places.append(place)
                continue
        places.append(len(kept))
        kept.append(message)
    return Unit(project_id, tuple(kept)), places


class _Committer:
    """One commit at a time, of everything that waits."""

    def __init__(
        self,
        log: Log,
        publish: Publish,
        health: Health,
        observer: Observer,
        before_publish: Callable[[int], None] | None,
    ) -> None:
        self._log = log
        self._publish = publish
        self._health = health
        self._observer = observer
        self._before_publish = before_publish
        self._waiting: deque[_Waiting] = deque()
        self._waiting_messages = 0
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._commits = 0
        # Appends in the last commit, when it ended, and who waits for as many again.
        self._last_size = 0
        self._last_end_s = float("-inf")
        self._gathered: asyncio.Event | None = None
        self._loop = asyncio.get_running_loop()

    def submit(self, unit: Unit) -> asyncio.Future[list[Appended]]:
        """Queue a unit for the next commit; the future has its outcome."""
        if self._waiting_messages + len(unit.messages) > _MAX_WAITING_MESSAGES:
            raise Overloaded("too many appends are waiting")
        waiting = _Waiting(unit, self._loop)
        self._waiting.append(waiting)
        self._waiting_messages += len(unit.messages)
        self._idle.clear()
        self._wake.set()
        if self._gathered is not None and len(self._waiting) >= self._last_size:
            self._gathered.set()
        return waiting.future

    async def drained(self) -> None:
        await self._idle.wait()

    async def run(self) -> None:
        batch: list[_Waiting] = []
        try:
            while True:
                if not self._waiting:
                    self._idle.set()
                    await self._wake.wait()
                self._wake.clear()
                await self._gather()
                batch = self._take()
                if batch:
                    await self._commit(batch)
                    self._last_size, self._last_end_s = len(batch), self._loop.time()
                    batch = []
        finally:
            for waiting in (*batch, *self._waiting):
                if not waiting.future.done():
                    waiting.future.set_exception(LogUnavailable("the log is closing"))

    async def _gather(self) -> None:
        """Wait until as many wait as were in the last commit, or for `GATHER_S` after its end."""
        until_s = self._last_end_s + GATHER_S
        if self._last_size < 2 or len(self._waiting) >= self._last_size:
            return
        if self._loop.time() >= until_s:
            return
        self._gathered = gathered = asyncio.Event()
        timer = self._loop.call_at(until_s, gathered.set)
        try:
            await gathered.wait()
        finally:
            timer.cancel()
            self._gathered = None

    def _take(self) -> list[_Waiting]:
        """Take what fits in one commit; an id that is in it already waits for the next one."""
        batch: list[_Waiting] = []
        keys: set[_Key] = set()
        size = 0
        oldest_s = self._loop.time() - _QUEUE_TIMEOUT_S
        while self._waiting:
            waiting = self._waiting[0]
            if waiting.since_s < oldest_s:
                self._waiting.popleft()
                self._waiting_messages -= len(waiting.unit.messages)
                _fail(waiting, LogUnavailable("no answer from Postgres in time"))
                continue
            if batch and size + len(waiting.unit.messages) > MAX_BATCH:
                break
            if waiting.keys:
                if not keys.isdisjoint(waiting.keys):
                    break
                keys.update(waiting.keys)
            size += len(waiting.unit.messages)
            batch.append(self._waiting.popleft())
        self._waiting_messages -= size
        return batch

    async def _commit(self, batch: list[_Waiting]) -> None:
        try:
            results = await self._log.append([waiting.unit for waiting in batch])
        except Unavailable as error:
            self._health.saw_postgres(False)
            for waiting in batch:
                _fail(waiting, error)
            return
        except StreamsError as error:
            if len(batch) == 1:
                _log.warning("append refused by the log", extra={"error": str(error)})
                _fail(batch[0], error)
                return
            # One unit that Postgres cannot take must not fail the others.
            for waiting in batch:
                await self._commit([waiting])
            return
        self._health.saw_postgres(True)
        self._commits += 1
        if self._before_publish is not None:
            self._before_publish(self._commits)
        self._settle(batch, results)

    def _settle(self, batch: list[_Waiting], results: list[list[Appended] | StreamsError]) -> None:
        fresh: dict[str, list[tuple[int, bytes]]] = {}
        count = 0
        for waiting, result in zip(batch, results, strict=True):
            if isinstance(result, StreamsError):
                _fail(waiting, result)
                continue
            for appended in result:
                if not appended.duplicate:
                    message = appended.message
                    count += 1
                    fresh.setdefault(message.project_id, []).append((message.seq, encode(message)))
            if not waiting.future.done():
                waiting.future.set_result(result)
        if count:
            self._observer.committed(count)
        for project_id, messages in fresh.items():
            # One transaction numbers a project's messages without a hole, in order.
            self._publish(project_id, messages[0][0], [data for _, data in messages])


def _fail(waiting: _Waiting, error: StreamsError) -> None:
    if not waiting.future.done():
        waiting.future.set_exception(error)
