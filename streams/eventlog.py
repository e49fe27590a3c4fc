"""EventLog: the one object that users of the library hold. It puts the parts together.

async with EventLog.open(database_url, redis_url) as log:
    message = await log.append("p1", NewMessage(user_id="u1", text="hello"))
    async for event in log.follow("p1", after=message.seq):
        ...
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any

import msgspec

from streams.answers.answer_rows import AnswerRows
from streams.builds.build_news import BuildNews
from streams.builds.build_rows import BuildBounds, BuildRows
from streams.builds.build_watch import BuildWatch
from streams.builds.lifecycle import Builds
from streams.builds.statuses import Statuses
from streams.log.appender import Appender
from streams.log.database import Database
from streams.log.log import Appended, Log, Page
from streams.log.migrations import migrate
from streams.log.postgres_probe import PostgresProbe
from streams.log.projects import Projects
from streams.model import sse
from streams.model.errors import Closed, StreamsError, Unavailable
from streams.model.events import BuildStatus, Event, Message, NewMessage, encode
from streams.model.ids import EntryId
from streams.presence.presence import Presence
from streams.presence.typing_state import Typing
from streams.runtime.health import Health
from streams.runtime.observer import Observer
from streams.runtime.owned_tasks import end
from streams.tail.heads_poll import HeadsPoll
from streams.tail.reader import Reader, Tiers
from streams.tail.registry import Tails
from streams.tail.tail import Tail
from streams.window.buckets import Buckets
from streams.window.entries import SkippedEntries
from streams.window.publisher import Publisher
from streams.window.redis_client import RedisClient
from streams.window.redis_probe import RedisProbe
from streams.window.transient import TransientWriter
from streams.window.window import Window

_log = logging.getLogger(__name__)

# Of a process that must have ended in 10 s, whatever its servers do.
_DRAIN_TIMEOUT_S = 2.5


class EventLogConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What may be tuned. The library reads no environment."""

    database_pool_size: int = 8
    committers: int = 2
    heads_poll_s: float = 0.5
    """A message whose publishing failed is delivered about this long after its commit."""
    redis_timeout_s: float = 1.0
    database_timeout_s: float = 10.0
    append_timeout_s: float = 5.0
    """Who waits for an append is told after so long that the outcome is unknown."""
    tail_memory_bytes: int = 256 * 1024 * 1024
    tail_linger_s: float = 60.0
    presence_alive_s: float = 15.0
    """The users of a process that died are forgotten after this long and a third of it."""
    presence_grace_s: float = 10.0
    """A user who has no stream for so long is offline."""
    build_bounds: BuildBounds = BuildBounds()
    before_publish: Callable[[int], None] | None = None
    """A fault point: called with the number of commits, between a commit and its publishing."""


class EventLog:
    """A durable, resumable log of messages per project.

    Safe for use by many tasks of one event loop. Every method may raise `Unavailable` when the
    servers do not answer, and `Closed` after `close`.
    """

    def __init__(
        self,
        database: Database,
        client: RedisClient,
        config: EventLogConfig,
        observer: Observer,
    ) -> None:
        self.process_id = uuid.uuid4().hex[:12]
        self.database = database
        self.redis = client
        self.health = Health(observer)
        self.projects = Projects(database)
        self.log = Log(database)
        skipped = SkippedEntries(observer)
        self.window = Window(client, skipped)
        self.buckets = Buckets(client)
        self.observer = observer
        self.publisher = Publisher(self.window, self.log, self.health, observer)
        self.tails = Tails(
            client,
            self.window,
            self.log,
            self.publisher,
            self.health,
            observer,
            skipped=skipped,
            process_id=self.process_id,
            memory_bytes=config.tail_memory_bytes,
            linger_s=config.tail_linger_s,
        )
        self.tiers = Tiers(self.window, self.log, self.health)
        self._appender = Appender(
            self.log,
            self.publisher.submit,
            observer,
            committers=config.committers,
            timeout_s=config.append_timeout_s,
            before_publish=config.before_publish,
        )
        self._poll = HeadsPoll(
            self.tails,
            self.log,
            self.window,
            self.publisher,
            self.health,
            observer,
            interval_s=config.heads_poll_s,
        )
        self._probe = RedisProbe(client, self.process_id, self.health, config.heads_poll_s)
        self.postgres = PostgresProbe(database, self.health)
        self.transient = TransientWriter(self.window, self.log)
        rows = BuildRows(database, self.log, config.build_bounds)
        self.statuses = Statuses(self.transient, rows, self.health)
        self.builds = Builds(rows, self.statuses, BuildNews(client), self.health, self.committed)
        self.typing = Typing(client, self.tails, self.health)
        self.presence = Presence(
            client,
            self.process_id,
            self.health,
            alive_s=config.presence_alive_s,
            grace_s=config.presence_grace_s,
        )
        self.answers = AnswerRows(database, self.log, self.committed)
        self.build_watch = BuildWatch(self.tails, rows, self.statuses, self.health)
        self._tasks: list[asyncio.Task[None]] = []
        self._failed: str | None = None
        self._has_failed = asyncio.Event()
        self._closed = False

    @classmethod
    @contextlib.asynccontextmanager
    async def open(
        cls,
        database_url: str,
        redis_url: str,
        *,
        config: EventLogConfig | None = None,
        observer: Observer | None = None,
    ) -> AsyncIterator[EventLog]:
        """Open the log for the length of an `async with`. The servers may be down as yet."""
        config = config or EventLogConfig()
        database = await Database.open(
            database_url, size=config.database_pool_size, timeout_s=config.database_timeout_s
        )
        client = RedisClient(redis_url, timeout_s=config.redis_timeout_s)
        log = cls(database, client, config, observer or Observer())
        log._start()
        try:
            yield log
        finally:
            await log.close()

    def _start(self) -> None:
        parts: list[tuple[str, Coroutine[Any, Any, None]]] = [
            ("appender", self._appender.run()),
            ("publisher", self.publisher.run()),
            ("lanes", self.tails.lanes.run()),
            ("heads poll", self._poll.run()),
            ("redis probe", self._probe.run()),
            ("postgres probe", self.postgres.run()),
            ("build statuses", self.statuses.run()),
            ("build watch", self.build_watch.run()),
            ("typing", self.typing.run()),
            ("presence", self.presence.run()),
        ]
        for name, run in parts:
            task = asyncio.create_task(run, name=name)
            task.add_done_callback(self._part_ended)
            self._tasks.append(task)

    def _part_ended(self, task: asyncio.Task[None]) -> None:
        # The parts run for ever: an end is a bug, and silence would be the outage.
        if not self._closed and not task.cancelled():
            self._failed = task.get_name()
            self._has_failed.set()
            _log.critical(
                "a part of the event log ended",
                extra={"part": task.get_name()},
                exc_info=task.exception(),
            )

    @property
    def failed_part(self) -> str | None:
        """The part that ended though it should not have: this process must be restarted."""
        return self._failed

    async def failed(self) -> None:
        """Return when a part has ended though it should not have."""
        await self._has_failed.wait()

    async def close(self) -> None:
        """Finish the appends under way and their publishing, then close the connections."""
        if self._closed:
            return
        self._closed = True
        # Followers look up and see that it is over.
        for tail in self.tails.all():
            tail.notify()
        try:
            async with asyncio.timeout(_DRAIN_TIMEOUT_S):
                await self._appender.drained()
                await self.builds.drained()
                if self.health.writes_somewhere:
                    await self.statuses.drained()
                    await self.publisher.drained()
        except TimeoutError:
            # Most likely a server hangs, and asyncpg waits for its word even when cancelled.
            self.database.abandon()
        await self._end_parts()
        await self.presence.close()
        await self.build_watch.close()
        await self.tails.close()
        await self.tiers.close()
        await self.redis.close()
        await self.database.close()

    async def _end_parts(self) -> None:
        running = await end(self._tasks)
        if running:
            _log.error("parts do not end", extra={"parts": running})

    # Writing.

    async def append(self, project_id: str, message: NewMessage) -> Message:
        """Append one message and return it as committed; see `append_many`."""
        return (await self._appender.append(project_id, (message,)))[0].message

    async def append_many(
        self, project_id: str, messages: Sequence[NewMessage], *, deadline_s: float | None = None
    ) -> list[Appended]:
        """Append messages in order, all or none; return when they are committed.

        They reach the project's readers, in this and other processes, soon after. The commit goes
        on when the caller is cancelled. With a `client_msg_id` a repeat gives the first result.
        `deadline_s` is a time of the loop's clock; without it `append_timeout_s` counts from now.

        Raises:
            InvalidInput, PayloadTooLarge, IdempotencyMismatch, ProjectNotFound: nothing written.
            Unavailable: the outcome is unknown; repeat with the same client_msg_id.
        """
        return await self._appender.append(project_id, messages, deadline_s=deadline_s)

    def append_soon(self, project_id: str, message: NewMessage) -> asyncio.Future[list[Appended]]:
        """Begin to append one message, without a task: see `append_many`, which this is of one.

        Raises what is wrong with the message; the future has the rest.
        """
        return self._appender.submit(project_id, message)

    async def append_status(self, project_id: str, status: BuildStatus) -> EntryId:
        """Append a `build.status` entry to the project's stream and return its id.

        A transient entry: it lives in the window alone and is delivered at least once while it is
        there.

        Raises:
            ProjectNotFound: the log has no such project.
            WindowUnavailable: Redis does not answer; the entry may or may not be there.
        """
        return await self.append_transient(project_id, "build.status", encode(status))

    async def append_transient(self, project_id: str, event: str, data: bytes) -> EntryId:
        """Append a transient entry; `data` is a JSON object, to which `entryId` is added."""
        return await self.transient.append(project_id, event, data)

    def committed(self, message: Message) -> None:
        """Publish a message that was committed in another transaction than this log's own."""
        self.observer.committed(1)
        self.publisher.submit(message.project_id, message.seq, [encode(message)])

    # Reading.

    async def head(self, project_id: str) -> int:
        """Return the highest committed seq of a project."""
        return await self.log.head(project_id)

    async def history(
        self,
        project_id: str,
        *,
        after: int = 0,
        before: int = 2**53,
        limit: int = 50,
        descending: bool = False,
    ) -> Page:
        """Return messages with `after < seq < before` from the log, and the head."""
        return await self.log.page(
            project_id, after=after, before=before, limit=limit, descending=descending
        )

    def reader(self, tail: Tail, cursor: int) -> Reader:
        """Return a reader that stands after message `cursor` of a tail that is being held."""
        return Reader(tail, self.tiers, cursor)

    async def follow(self, project_id: str, *, after: int | None = None) -> AsyncIterator[Event]:
        """Yield every message after `after` (none: from now on), then wait for more, for ever.

        Messages come in order of seq, each exactly once. Transient entries that are in the window
        come with them, at least once; ephemeral events do not. A slow consumer falls back to the
        log and misses nothing. While servers are away it waits.

        Raises:
            ProjectNotFound: the log has no such project.
            LogRestored: the log was restored from a backup and lacks what was yielded.
        """
        changed = asyncio.Event()

        def signalled(_: bytes) -> None:
            pass

        async with self.tails.reading(project_id) as tail:
            reader = self.reader(tail, tail.last_seq if after is None else after)
            if after is None:
                reader.at(tail.last_seq, tail.end_index)
            tail.listen(changed.set, signalled)
            try:
                while not self._closed:
                    changed.clear()
                    try:
                        piece = await reader.read()
                    except Unavailable as error:
                        await asyncio.sleep(error.retry_after_s)
                        continue
                    for event in _events(piece.frames):
                        yield event
                    if not piece.frames:
                        await changed.wait()
            finally:
                tail.unlisten(changed.set, signalled)
        raise Closed("the log is closed")

    # Operating.

    async def migrate(self) -> list[str]:
        """Bring the database's schema up to date and return what was applied."""
        return await migrate(self.database)

    async def check(self) -> dict[str, str | None]:
        """Ask both servers now: name → none when it answers, else why not.

        For whoever asks once. `postgres` and `health` have what is known without asking.
        """
        found: dict[str, str | None] = {"postgres": None, "redis": None}
        try:
            await self.database.fetch("SELECT 1")
        except StreamsError as error:
            found["postgres"] = str(error)
        try:
            await self.window.ping()
        except StreamsError as error:
            found["redis"] = str(error)
        found["redis"] = found["redis"] or self.health.redis_problem
        return found


def _events(frames: Sequence[bytes]) -> list[Event]:
    events = []
    for frame in frames:
        name, seq = sse.name_and_id(frame)
        data = sse.data_of(frame)
        if seq is not None:
            entry_id = EntryId(seq, 0)
        else:
            written = msgspec.json.decode(data, type=_HasEntryId).entryId
            entry_id = _NOT_IN_WINDOW if written is None else EntryId.parse(written.encode())
        events.append(Event(entry_id, name, data))
    return events


# A build's status that came from the database while Redis was away: it is no entry of a stream.
_NOT_IN_WINDOW = EntryId(0, 1)


class _HasEntryId(msgspec.Struct):
    entryId: str | None = None  # noqa: N815
