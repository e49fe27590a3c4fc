"""The console on real servers that lack something, and on clients that are slow."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import pytest
from prometheus_client import CollectorRegistry

from service.access.identity import Caller
from service.access.membership import AccessControl
from service.console import leg_watch
from service.console.console import Console, Legs
from service.http.api_errors import ApiError
from service.operate.embedded import RedisServer
from service.settings import Settings
from service.streaming.connection import Connection, StreamRequest
from service.streaming.open_streams import OpenStreams
from service.streaming.stream_writer import StreamTimes
from service.telemetry.metrics import Metrics
from streams.eventlog import EventLog
from streams.log.database import Database
from streams.model.errors import LogUnavailable, ProjectNotFound
from streams.model.events import NewMessage
from streams.window import keys
from streams.window.redis_client import RedisClient
from tests.integration.conftest import NewProject, OpenLog
from tests.support.recording_wire import RecordingWire
from tests.support.waiting import wait_until

_ADMIN = Caller(
    user_id="operator",
    scopes=frozenset({"admin"}),
    projects=None,
    expires_at_s=None,
    method="token",
)


class _Process:
    """A process of the service without its HTTP server."""

    def __init__(self, log: EventLog) -> None:
        self.log = log
        self.metrics = Metrics(CollectorRegistry())
        settings = Settings(heartbeat_s=3600.0, coalesce_ms=0.0)
        self.streams = OpenStreams(log, AccessControl(log), self.metrics, settings)
        self.console = Console(log, self.streams, self.metrics, version="test")

    async def append(self, project: str, count: int = 1) -> None:
        """Commit messages and wait until the publisher has tried to publish them."""
        messages = [NewMessage(user_id="u", text="x") for _ in range(count)]
        await self.log.append_many(project, messages)
        await self.log.publisher.drained()

    @contextlib.asynccontextmanager
    async def stream(self, project: str, wire: RecordingWire) -> AsyncIterator[Connection]:
        """A live stream of the project."""
        tail = await self.log.tails.acquire(project)
        connection = Connection(
            wire, self.streams.enter(tail), self.log.reader(tail, tail.last_seq), self.metrics,
            StreamTimes(2000, 30),
            StreamRequest(
                connection_id="c1", project_id=project, user_id="u", cursor=None, reset=None,
                start=None, heartbeat_s=3600.0,
                expires_at_s=None, member_since=time.monotonic(), headers=[],
            ),
        )  # fmt: skip
        task = asyncio.create_task(self.streams.serve(connection))
        broadcast = self.streams.broadcast_of(project)
        assert broadcast is not None
        await wait_until(lambda: broadcast.is_live(connection), what="live")
        try:
            yield connection
        finally:
            connection.close("shutdown")
            await task
            self.streams.leave(tail)
            self.log.tails.release(tail)


@pytest.fixture
async def process(open_log: OpenLog) -> AsyncIterator[_Process]:
    """A process on the shared servers."""
    made = _Process(await open_log())
    yield made
    await made.console.close()


async def test_messages_that_the_window_lacks_are_shown_as_holes(
    process: _Process, redis_client: RedisClient, project: str
) -> None:
    """Another program deleted entries: the ids are walked, and the log has no hole."""
    await process.append(project, 10)
    await redis_client.call("XDEL", keys.stream(project), "4-0", "5-0", "8-0")
    seen = await process.console.project(project)
    assert seen.redis is not None
    assert (seen.redis.lo, seen.redis.hi, seen.redis.messages) == (1, 10, 7)
    assert [(hole.from_seq, hole.to_seq) for hole in seen.redis.holes] == [(4, 5), (8, 8)]
    assert seen.redis.missing_seqs == 3
    assert seen.postgres is not None
    assert (seen.postgres.counted, seen.postgres.holes) == (10, [])


async def test_messages_that_the_log_lacks_are_shown_as_holes(
    process: _Process, database: Database, project: str
) -> None:
    """Rows that somebody deleted, at the end too: the head says what there was."""
    await process.append(project, 10)
    await database.execute(
        "DELETE FROM messages WHERE project_id = $1 AND seq IN (3, 9, 10)", project
    )
    seen = (await process.console.project(project)).postgres
    assert seen is not None
    assert [(hole.from_seq, hole.to_seq) for hole in seen.holes] == [(3, 3), (9, 10)]
    assert (seen.head_seq, seen.counted, seen.missing_seqs) == (10, 7, 3)


async def test_a_slow_readers_backlog_and_lag_are_shown(process: _Process, project: str) -> None:
    """It takes no more bytes: blocked, with what waits for it and how far behind it is."""
    wire = RecordingWire()
    async with process.stream(project, wire):
        await process.append(project)
        await wait_until(lambda: wire.seqs("message.new") == [1], what="the first message")
        wire.blocked, wire.backlog_bytes = True, 12_345
        await process.append(project, 3)
        tail = process.log.tails.get(project)
        assert tail is not None
        await wait_until(lambda: tail.last_seq == 4, what="the others")
        seen = await process.console.project(project)
        (row,) = seen.streams
        assert (row.state, row.cursor, row.lag_seqs) == ("blocked", 1, 3)
        assert (row.backlog_bytes, seen.waiting["blocked"].max_lag_seqs) == (12_345, 3)
        overview = await process.console.overview(_ADMIN)
        (of_project,) = overview.projects
        assert (of_project.streams, of_project.blocked) == (1, 1)
        wire.blocked = False  # or its end would wait for it


async def test_with_redis_away_the_rest_is_shown_and_redis_is_named(
    open_log: OpenLog, own_redis: RedisServer, project: str
) -> None:
    """Memory and Postgres as ever; the legs go on, without a publishing."""
    process = _Process(await open_log(redis_url=own_redis.url))
    wire = RecordingWire()
    async with process.stream(project, wire):
        await process.console.legs(project, 0)
        await process.append(project)
        await wait_until(lambda: wire.seqs("message.new") == [1], what="the first message")
        own_redis.kill()
        await wait_until(lambda: not process.log.health.redis_up, what="the outage")
        await process.append(project)
        await wait_until(lambda: wire.seqs("message.new") == [1, 2], what="by the poll")
        seen = await process.console.project(project)
        assert seen.redis is None
        assert [each.part for each in seen.missing] == ["redis"]
        assert seen.memory is not None
        assert seen.postgres is not None
        assert (seen.memory.last_seq, seen.postgres.head_seq) == (2, 2)
        overview = await process.console.overview(_ADMIN)
        assert overview.health.status == "degraded"
        assert "redis" in [part.name for part in overview.health.parts if not part.ok]
        legs = await process.console.legs(project, 1)
        assert [(leg.id, leg.published_ms, leg.connections) for leg in legs.events] == [
            ("2-0", None, 1)
        ]
        assert [each.part for each in legs.missing] == ["redis"]
    await process.console.close()


async def test_with_postgres_away_the_rest_is_shown_and_postgres_is_named(
    process: _Process, monkeypatch: pytest.MonkeyPatch, project: str
) -> None:
    """Whether the project exists is not known then: what is known of it is shown."""
    wire = RecordingWire()
    async with process.stream(project, wire):
        await process.append(project)

        async def fail(*_: object) -> None:
            raise LogUnavailable("Postgres: ConnectionRefusedError")

        with monkeypatch.context() as patch:
            patch.setattr(process.log.database, "fetch", fail)
            seen = await process.console.project(project)
            assert (seen.postgres, seen.builds, seen.answers) == (None, None, None)
            assert [(each.part, each.why) for each in seen.missing] == [
                ("postgres", "Postgres: ConnectionRefusedError")
            ]
            assert seen.redis is not None
            assert seen.redis.hi == 1
            overview = await process.console.overview(_ADMIN)
            assert [row.project_id for row in overview.projects] == [project]
            assert overview.work is not None
            assert overview.work.builds is None
            assert [each.part for each in overview.missing] == ["postgres"]


async def test_a_store_that_hangs_costs_one_timeout(
    process: _Process, monkeypatch: pytest.MonkeyPatch, project: str
) -> None:
    """The first question waits; a store that did not answer it is not asked the others."""
    asked = 0

    async def hang(*_: object) -> None:
        nonlocal asked
        asked += 1
        await asyncio.Event().wait()

    monkeypatch.setattr("service.console.asking._TIMEOUT_S", 0.05)
    with monkeypatch.context() as patch:
        patch.setattr(process.log.database, "fetch", hang)
        seen = await process.console.overview(_ADMIN)
    assert asked <= 2  # the other one by the heads poll
    assert [each.part for each in seen.missing] == ["postgres"]


async def test_many_questions_leave_connections_to_posts(
    process: _Process, monkeypatch: pytest.MonkeyPatch, new_project: NewProject
) -> None:
    """A slow Postgres is asked by two views at a time; the others are told that it is missing."""
    projects = [await new_project() for _ in range(6)]
    waiting = most = 0

    async def hang(*_: object, **__: object) -> None:
        nonlocal waiting, most
        waiting += 1
        most = max(most, waiting)
        try:
            await asyncio.Event().wait()
        finally:
            waiting -= 1

    monkeypatch.setattr("service.console.asking._TIMEOUT_S", 0.05)
    monkeypatch.setattr("streams.log.survey.LogSurvey.project", hang)
    views = await asyncio.gather(*(process.console.project(each) for each in projects))
    assert most == 2
    assert {each.part for view in views for each in view.missing} == {"postgres"}


async def test_a_watch_of_legs_ends_after_the_last_question(
    process: _Process, monkeypatch: pytest.MonkeyPatch, project: str
) -> None:
    """Then nothing listens to the tail or the broadcast, and the tail is let go."""
    monkeypatch.setattr(leg_watch, "LASTS_S", 0.1)
    async with process.stream(project, RecordingWire()):
        first = await process.console.legs(project, 0)
        broadcast = process.streams.broadcast_of(project)
        assert broadcast is not None
        assert broadcast.on_write is not None
        await wait_until(lambda: broadcast.on_write is None, what="the end of the watch")
        assert (await process.console.legs(project, 0)).watch_id != first.watch_id


async def test_a_stream_that_opens_during_a_watch_is_watched_too(
    process: _Process, project: str
) -> None:
    """Nobody read the project when the console began to ask."""
    await process.console.legs(project, 0)
    await process.append(project)

    async def legs(after: int) -> Legs:
        return await process.console.legs(project, after)

    async def has_arrived() -> bool:
        return [leg.connections for leg in (await legs(0)).events] == [0]

    await wait_until(has_arrived, what="a message that nobody was sent")
    wire = RecordingWire()
    async with process.stream(project, wire):
        await process.append(project)
        await wait_until(lambda: wire.seqs("message.new") == [2], what="the second message")
        assert [leg.connections for leg in (await legs(1)).events] == [1]


async def test_only_so_many_projects_are_watched_at_once(
    process: _Process, monkeypatch: pytest.MonkeyPatch, new_project: NewProject
) -> None:
    """Each holds a tail: another one is refused, those that are watched go on."""
    monkeypatch.setattr(leg_watch, "MAX_WATCHED", 2)
    one, two, three = [await new_project() for _ in range(3)]
    for project in (one, two, one):
        await process.console.legs(project, 0)
    with pytest.raises(ApiError) as refused:
        await process.console.legs(three, 0)
    assert (refused.value.status, refused.value.code) == (429, "RATE_LIMITED")


async def test_a_project_that_does_not_exist_is_not_watched(process: _Process) -> None:
    """Nor is it shown."""
    with pytest.raises(ProjectNotFound):
        await process.console.legs("no-such", 0)
    with pytest.raises(ProjectNotFound):
        await process.console.project("no-such")


async def test_closing_ends_what_runs_while_somebody_asks(process: _Process, project: str) -> None:
    """A shutdown leaves no tail held and no task behind."""
    await process.console.overview(_ADMIN)
    await process.console.legs(project, 0)
    tail = process.log.tails.get(project)
    assert tail is not None
    listening = len(tail._listeners)
    await process.console.close()
    assert len(tail._listeners) == listening - 1
    assert "rates of the console" not in {task.get_name() for task in asyncio.all_tasks()}
