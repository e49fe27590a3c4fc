"""The parts of an event log: which part gets which, which of them run, and how they are closed.

The composition root of the library. Decisions belong in the parts; what users of the library
call is in `eventlog.py`.
"""

from __future__ import annotations

import asyncio
import uuid

from streams.answers.answer_rows import AnswerRows
from streams.answers.answer_watch import AnswerWatch
from streams.answers.answers import Answers
from streams.answers.outside import OutsideAnswers
from streams.answers.outside_rows import OutsideRows
from streams.answers.piece_publisher import PiecePublisher
from streams.answers.piece_rows import PieceRows
from streams.builds.build_news import BuildNews
from streams.builds.build_rows import BuildRows
from streams.builds.build_watch import BuildWatch
from streams.builds.lifecycle import Builds
from streams.builds.statuses import Statuses
from streams.config import EventLogConfig
from streams.log.appender import Appender
from streams.log.database import Database
from streams.log.log import Log
from streams.log.postgres_probe import PostgresProbe
from streams.log.projects import Projects
from streams.model.events import Message, encode
from streams.presence.presence import Presence
from streams.presence.typing_state import Typing
from streams.runtime.health import Health
from streams.runtime.observer import Observer
from streams.runtime.part_tasks import PartTasks
from streams.tail.gap_filler import GapFiller
from streams.tail.heads_poll import HeadsPoll
from streams.tail.lane_set import LaneSet
from streams.tail.lower_tiers import LowerTiers
from streams.tail.registry import TailRegistry
from streams.tail.signal_fanout import SignalFanout
from streams.tail.tail_factory import TailFactory
from streams.window.buckets import Buckets
from streams.window.entries import SkippedEntries
from streams.window.publisher import Publisher
from streams.window.redis_client import RedisClient
from streams.window.redis_probe import RedisProbe
from streams.window.transient import TransientWriter
from streams.window.window import Window

# A process that is shut down must have ended within 10 s, even if a server does not answer.
_DRAIN_TIMEOUT_S = 2.5


class LogTier:
    """The lowest tier: every message, in Postgres."""

    def __init__(self, database: Database, health: Health) -> None:
        self.database = database
        self.log = Log(database)
        self.projects = Projects(database)
        self.probe = PostgresProbe(database, health)


class WindowTier:
    """The middle tier: the newest messages and transient entries, in Redis."""

    def __init__(
        self,
        client: RedisClient,
        process_id: str,
        log: Log,
        health: Health,
        observer: Observer,
        probe_interval_s: float,
    ) -> None:
        self.client = client
        self.skipped = SkippedEntries(observer)
        self.window = Window(client, self.skipped)
        self.buckets = Buckets(client)
        self.publisher = Publisher(self.window, log, health, observer)
        self.transient = TransientWriter(self.window, log)
        self.probe = RedisProbe(client, process_id, health, probe_interval_s)


class TailTier:
    """The highest tier: the newest entries of the projects that have readers, in memory."""

    def __init__(
        self,
        log: Log,
        below: WindowTier,
        process_id: str,
        health: Health,
        observer: Observer,
        config: EventLogConfig,
    ) -> None:
        window, publisher = below.window, below.publisher
        filler = GapFiller(log, publisher, observer)
        signals = SignalFanout()
        lanes = LaneSet(
            below.client,
            process_id,
            health,
            below.skipped,
            on_gap=filler.gap_found,
            on_signal=signals.received,
        )
        filler.on_reread(lanes.reposition)
        self.tails = TailRegistry(
            TailFactory(window, log, publisher, health),
            lanes,
            filler,
            signals,
            memory_bytes=config.tail_memory_bytes,
            linger_s=config.tail_linger_s,
        )
        self.lower = LowerTiers(window, log, health)
        self.heads_poll = HeadsPoll(
            self.tails,
            filler,
            log,
            window,
            publisher,
            health,
            observer,
            interval_s=config.heads_poll_s,
        )


class Parts:
    """The three tiers, the way into the log, and what lives on the log."""

    def __init__(
        self, database: Database, client: RedisClient, config: EventLogConfig, observer: Observer
    ) -> None:
        self.process_id = uuid.uuid4().hex[:12]
        self.observer = observer
        self.health = health = Health(observer)
        self.is_closed = False
        self.tasks = PartTasks()

        self.postgres = LogTier(database, health)
        log = self.postgres.log
        self.redis = WindowTier(client, self.process_id, log, health, observer, config.heads_poll_s)
        self.memory = TailTier(log, self.redis, self.process_id, health, observer, config)

        self.appender = Appender(
            log,
            self.redis.publisher.submit,
            observer,
            committers=config.committers,
            timeout_s=config.append_timeout_s,
            before_publish=config.before_publish,
        )
        build_rows = BuildRows(database, log, config.build_bounds)
        self.statuses = Statuses(self.redis.transient, build_rows.reader, health)
        self.builds = Builds(
            build_rows, self.statuses, BuildNews(client), health, self._publish_committed
        )
        self.build_watch = BuildWatch(self.memory.tails, build_rows.reader, self.statuses, health)
        self.pieces = PieceRows(database)
        self.piece_publisher = PiecePublisher(self.redis.transient, self.memory.tails.lanes, health)
        self.answers = Answers(
            AnswerRows(database, log, self._publish_committed),
            self.pieces,
            self.piece_publisher,
            self.memory.tails,
            self.process_id,
            lease_s=config.answer_lease_s,
        )
        self.answer_watch = AnswerWatch(self.memory.tails, self.pieces, health)
        self.outside_answers = OutsideAnswers(
            OutsideRows(database, config.outside_bounds), self.answers.rows, self.piece_publisher
        )
        self.typing = Typing(client, self.memory.tails, health)
        self.presence = Presence(
            client,
            self.process_id,
            health,
            alive_s=config.presence_alive_s,
            grace_s=config.presence_grace_s,
        )

    def _publish_committed(self, message: Message) -> None:
        """Publish a message that was committed in another transaction than the appender's."""
        self.observer.committed(1)
        self.redis.publisher.submit(message.project_id, message.seq, [encode(message)])

    def start(self) -> None:
        """Start the parts that run until cancelled."""
        for name, run in (
            ("appender", self.appender.run()),
            ("publisher", self.redis.publisher.run()),
            ("lanes", self.memory.tails.lanes.run()),
            ("heads poll", self.memory.heads_poll.run()),
            ("redis probe", self.redis.probe.run()),
            ("postgres probe", self.postgres.probe.run()),
            ("build statuses", self.statuses.run()),
            ("build watch", self.build_watch.run()),
            ("answer pieces", self.answers.store.run()),
            ("answer leases", self.answers.leases.run()),
            ("answer watch", self.answer_watch.run()),
            ("typing", self.typing.run()),
            ("presence", self.presence.run()),
        ):
            self.tasks.start(name, run)

    async def close(self) -> None:
        """Finish the appends in progress and their publishing, then close the connections."""
        if self.is_closed:
            return
        self.is_closed = True
        self.tasks.expect_end()
        # Followers wake up and see `is_closed`.
        for tail in self.memory.tails.all():
            tail.notify()
        await self._drain()
        await self.tasks.end()
        await self.presence.close()
        await self.answers.close()
        await self.answer_watch.close()
        await self.build_watch.close()
        await self.memory.tails.close()
        await self.memory.lower.close()
        await self.redis.client.close()
        await self.postgres.database.close()

    async def _drain(self) -> None:
        try:
            async with asyncio.timeout(_DRAIN_TIMEOUT_S):
                await self.appender.drained()
                await self.builds.drained()
                await self.outside_answers.drained()
                await self.answers.drained()
                if self.health.writes_somewhere:
                    await self.statuses.drained()
                    await self.redis.publisher.drained()
        except TimeoutError:
            # Most likely a server hangs. asyncpg waits for its answer even when cancelled.
            self.postgres.database.abandon()
