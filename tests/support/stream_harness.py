"""Stream connections on a real tail, in memory.

The wire records what is written, and lists take the place of Redis and Postgres. No sockets.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from itertools import count

from prometheus_client import CollectorRegistry

from service.http.wire import Wire
from service.streaming.broadcast import Broadcast
from service.streaming.connection import Connection, StreamRequest
from service.streaming.outgoing import Replays
from service.streaming.stream_frames import ResetReason
from service.streaming.stream_writer import StreamTimes
from service.telemetry.metrics import Metrics
from streams.model.ids import EntryId
from streams.tail.reader import Reader
from streams.tail.tail import Tail, offer_all
from tests.support.entries import entry
from tests.support.fake_tiers import FakeProject
from tests.support.recording_wire import RecordingWire
from tests.support.waiting import wait_until


class StreamHarness:
    """One project in one process: its tail, its broadcast, and the connections to it."""

    def __init__(
        self,
        project: FakeProject,
        tail: Tail,
        *,
        coalesce_s: float = 0.0,
        coalesce_most_s: float = 0.0,
        write_takes_s: float = 0.0,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.project = project
        self.tail = tail
        self.tiers = project.tiers()
        self.metrics = Metrics(CollectorRegistry())
        # The broadcast reads its clock before and after a write; each reading is one write later.
        readings = count()
        self.broadcast = Broadcast(
            tail,
            self.metrics,
            Replays(),
            coalesce_s,
            coalesce_most_s,
            clock or (lambda: next(readings) * write_takes_s),
        )
        self.tasks: list[asyncio.Task[str]] = []

    def arrive(self, count: int = 1) -> None:
        """Commit and publish messages, and deliver them to the tail in one batch."""
        self.project.append(count)
        self.deliver()

    def deliver(self) -> None:
        """Deliver new entries of the Redis stream to the tail in one batch."""
        new = [entry(each) for each in self.project.stream if each > self.tail.position]
        if new:
            self.tail.position = new[-1].id
        assert offer_all(self.tail, new) == []
        self.tail.notify()

    def connection(
        self,
        wire: Wire,
        *,
        cursor: int | None = None,
        start: int | None = None,
        reset: ResetReason | None = None,
        slow_client_s: float = 30.0,
        builds: Sequence[tuple[str, int, bytes]] = (),
        answers: Callable[[], Sequence[bytes]] = tuple,
    ) -> Connection:
        """Create a stream connection on this wire without running it.

        It starts after `start`, or after `cursor`, or live from head.
        """
        start = cursor if start is None else start
        reader = Reader(self.tail, self.tiers, self.tail.last_seq if start is None else start)
        return Connection(
            wire, self.broadcast, reader, self.metrics, StreamTimes(2000, slow_client_s),
            StreamRequest(
                connection_id="id", project_id="p", user_id="u", cursor=cursor, start=start,
                heartbeat_s=15.0, reset=reset,
                expires_at_s=None, member_since=0.0, headers=[], builds=builds,
                answers=answers,
            ),
        )  # fmt: skip

    async def connect(
        self,
        *,
        cursor: int | None = None,
        start: int | None = None,
        reset: ResetReason | None = None,
        slow_client_s: float = 30.0,
        wire: RecordingWire | None = None,
        builds: Sequence[tuple[str, int, bytes]] = (),
        answers: Callable[[], Sequence[bytes]] = tuple,
    ) -> tuple[Connection, RecordingWire, asyncio.Task[str]]:
        """Open a stream. The task runs it; the task's result is the reason of its end."""
        wire = wire or RecordingWire()
        connection = self.connection(
            wire,
            cursor=cursor,
            start=start,
            reset=reset,
            slow_client_s=slow_client_s,
            builds=builds,
            answers=answers,
        )
        await connection.prepare()
        task = asyncio.create_task(connection.run())
        self.tasks.append(task)
        return connection, wire, task

    async def connect_live(
        self, *, cursor: int | None = None, slow_client_s: float = 30.0
    ) -> tuple[Connection, RecordingWire, asyncio.Task[str]]:
        """Open a stream and wait until the broadcast writes to it."""
        opened = await self.connect(cursor=cursor, slow_client_s=slow_client_s)
        await wait_until(lambda: self.broadcast.is_live(opened[0]), what="live")
        return opened


@contextlib.asynccontextmanager
async def stream_harness(
    head: int = 0,
    *,
    below: int | None = None,
    coalesce_s: float = 0.0,
    coalesce_most_s: float = 0.0,
    write_takes_s: float = 0.0,
    max_entries: int = 1024,
    clock: Callable[[], float] | None = None,
) -> AsyncIterator[StreamHarness]:
    """A project with `head` messages; the tail holds those above `below`, by default none."""
    project = FakeProject()
    project.append(head)
    start = head if below is None else below
    tail = Tail("p", last_seq=start, position=EntryId(start, 0), max_entries=max_entries)
    opened = StreamHarness(
        project,
        tail,
        coalesce_s=coalesce_s,
        coalesce_most_s=coalesce_most_s,
        write_takes_s=write_takes_s,
        clock=clock,
    )
    opened.deliver()
    try:
        yield opened
    finally:
        for task in opened.tasks:
            task.cancel()
        await asyncio.gather(*opened.tasks, return_exceptions=True)
        opened.broadcast.close()
        await opened.tiers.close()
