"""EventLog: the one object that users of the library hold.

async with EventLog.open(database_url, redis_url) as log:
    message = await log.append("p1", NewMessage(user_id="u1", text="hello"))
    async for event in log.follow("p1", after=message.seq):
        ...

Its public methods and their contracts. How the parts behind them are put together, started and
closed is in `parts.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager

from streams.answers.answer_context import AnswerWriting, writing
from streams.config import EventLogConfig
from streams.log.database import Database
from streams.log.log import Appended, Page
from streams.log.migrations import migrate
from streams.model.errors import StreamsError
from streams.model.events import BuildStatus, Event, Message, NewMessage, encode
from streams.model.ids import EntryId
from streams.parts import Parts
from streams.runtime.observer import Observer
from streams.tail.follow import follow
from streams.tail.reader import Reader
from streams.tail.tail import Tail
from streams.window.redis_client import RedisClient

__all__ = ["EventLog", "EventLogConfig"]


class EventLog:
    """A durable, resumable log of messages per project.

    Safe for use by many tasks of one event loop. Every method may raise `Unavailable` when the
    servers do not answer, and `Closed` after `close`.

    `builds`, `answers`, `outside_answers`, `presence`, `typing` and `projects` are part of its
    public face; the tiers (`log`, `window`, `tails`) are there for the service.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._appender = parts.appender
        self._transient = parts.redis.transient
        self.process_id = parts.process_id
        self.health = parts.health
        # The log, in Postgres.
        self.database = parts.postgres.database
        self.log = parts.postgres.log
        self.projects = parts.postgres.projects
        self.postgres = parts.postgres.probe
        # The window, in Redis.
        self.window = parts.redis.window
        self.publisher = parts.redis.publisher
        self.buckets = parts.redis.buckets
        # The tail, in memory.
        self.tails = parts.memory.tails
        self.tiers = parts.memory.lower
        self.heads_poll = parts.memory.heads_poll
        # What lives on the log.
        self.builds = parts.builds
        self.statuses = parts.statuses
        self.build_watch = parts.build_watch
        self.answers = parts.answers
        self.answer_watch = parts.answer_watch
        self.outside_answers = parts.outside_answers
        self.typing = parts.typing
        self.presence = parts.presence

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
        """Open the log for the duration of an `async with`.

        The servers need not be up yet: methods raise `Unavailable` until they are.
        """
        config = config or EventLogConfig()
        database = await Database.open(
            database_url, size=config.database_pool_size, timeout_s=config.database_timeout_s
        )
        client = RedisClient(redis_url, timeout_s=config.redis_timeout_s)
        log = cls(Parts(database, client, config, observer or Observer()))
        log._parts.start()
        try:
            yield log
        finally:
            await log.close()

    @property
    def failed_part(self) -> str | None:
        """The name of a part that ended by a bug: this process must be restarted."""
        return self._parts.tasks.failed_part

    @property
    def running_parts(self) -> list[str]:
        """The names of the parts that run in tasks of their own."""
        return self._parts.tasks.running

    async def failed(self) -> None:
        """Return when a part has ended by a bug; see `failed_part`."""
        await self._parts.tasks.failed()

    async def close(self) -> None:
        """Finish the appends in progress and their publishing, then close the connections.

        Takes a few seconds at most, even when a server does not answer. Followers get `Closed`.
        A second call does nothing.
        """
        await self._parts.close()

    # Writing.

    async def append(self, project_id: str, message: NewMessage) -> Message:
        """Append one message and return it as committed; see `append_many`."""
        return (await self._appender.append(project_id, (message,)))[0].message

    async def append_many(
        self, project_id: str, messages: Sequence[NewMessage], *, deadline_s: float | None = None
    ) -> list[Appended]:
        """Append messages in order, all or none; return when they are committed.

        Ordering: consecutive seqs, in the order given. Delivery: to the project's readers in this
        and other processes, soon after the commit. A repeat of a `client_msg_id` adds nothing and
        gives the first result. Cancellation: the commit goes on. `deadline_s` is a time of the
        loop's clock; without it the config's `append_timeout_s` counts from now.

        Raises:
            InvalidInput, PayloadTooLarge, IdempotencyMismatch, ProjectNotFound: nothing was
                written.
            Unavailable: the outcome is unknown; repeat with the same `client_msg_id`.
        """
        return await self._appender.append(project_id, messages, deadline_s=deadline_s)

    def append_soon(self, project_id: str, message: NewMessage) -> asyncio.Future[list[Appended]]:
        """Start to append one message without a task; the future is done at its commit.

        Otherwise as `append_many` with this message. Cancelling the future does not undo the
        append.

        Raises:
            InvalidInput, PayloadTooLarge, Unavailable, Closed: at once. All else comes by the
                future.
        """
        return self._appender.submit(project_id, message)

    async def append_status(self, project_id: str, status: BuildStatus) -> EntryId:
        """Append a `build.status` entry to the project's stream; see `append_transient`."""
        return await self.append_transient(project_id, "build.status", encode(status))

    async def append_transient(self, project_id: str, event: str, data: bytes) -> EntryId:
        """Append a transient entry to the project's stream and return its id.

        `data` is a JSON object, to which `entryId` is added. Ordering: after the stream's last
        message. Delivery: at least once while the entry is in the window; it is not in the log.

        Raises:
            PayloadTooLarge: the data is too large; nothing was written.
            ProjectNotFound: the log has no such project.
            WindowUnavailable: Redis does not answer; the entry may or may not be there.
            LogUnavailable: the stream is empty and the log does not answer.
        """
        return await self._transient.append(project_id, event, data)

    def answer(
        self,
        project_id: str,
        *,
        reply_to: str,
        user_id: str,
        client_msg_id: str | None = None,
    ) -> AbstractAsyncContextManager[AnswerWriting]:
        """Return an `async with` in which an answer to the message `reply_to` is written.

        Its pieces go to the project's stream; with the end of the block it becomes a message of
        `user_id`, which is complete, or failed when the block raises. What was written is kept in
        either case, also when this process dies: then another one that has the log open ends it
        about `answer_lease_s` later. When a member stops the answer, writing raises
        `AnswerStopped`, with which the block ends quietly. Ordering: pieces in the order of their
        writing, all before the message. Delivery: pieces as transient entries, at most 20 a second,
        what comes faster is joined. Cancellation: the answer ends, as failed.

        Raises:
            AnswerNotFound: there is no such message among the newest 10,000 of the project.
            AnswerHeld: the `client_msg_id` of this user has an answer already.
            LogUnavailable: whether it was begun is unknown; without a writer it ends as failed.
        """
        return writing(
            self.answers,
            project_id,
            reply_to=reply_to,
            user_id=user_id,
            client_msg_id=client_msg_id,
        )

    # Reading.

    async def head(self, project_id: str) -> int:
        """Return the highest committed seq of a project; 0 when it has no messages.

        Raises:
            ProjectNotFound: the log has no such project.
        """
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
        """Return messages with `after < seq < before` from the log, and the head.

        At most `limit` messages, fewer when they are large; in order of seq, or the reverse.

        Raises:
            ProjectNotFound: the log has no such project.
        """
        return await self.log.page(
            project_id, after=after, before=before, limit=limit, descending=descending
        )

    def reader(self, tail: Tail, cursor: int) -> Reader:
        """Return a reader after message `cursor` of a tail that the caller holds."""
        return Reader(tail, self.tiers, cursor)

    def follow(self, project_id: str, *, after: int | None = None) -> AsyncIterator[Event]:
        """Yield every message after `after` (none: from now on), then wait for more.

        Ordering: by seq. Delivery: each message exactly once; transient entries that are in the
        window at least once, in their place; no ephemeral events. A slow consumer is served from
        the log and misses nothing. While servers do not answer it waits. Runs until cancelled.

        Raises:
            ProjectNotFound: the log has no such project.
            LogUnavailable: at the start, when neither Postgres nor Redis can say what the head is.
            LogRestored: the log was restored from a backup and lacks what was yielded.
            Closed: the log was closed.
        """
        return follow(
            self.tails,
            self.tiers,
            project_id,
            after=after,
            is_closed=lambda: self._parts.is_closed,
        )

    # Operating.

    async def migrate(self) -> list[str]:
        """Bring the database's schema up to date and return the names of what was applied."""
        return await migrate(self.database)

    async def check(self) -> dict[str, str | None]:
        """Ask both servers now: name → none when it answers, else the reason.

        For a single check. `postgres` and `health` have what is known without asking.
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
