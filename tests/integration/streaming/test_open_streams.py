"""All streams of a process: they end with membership (docs/protocol.md §3) and at shutdown (§6)."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable

import pytest
from prometheus_client import CollectorRegistry

from service.access.membership import AccessControl
from service.settings import Settings
from service.streaming import rechecks
from service.streaming.connection import Connection, StreamRequest
from service.streaming.open_streams import OpenStreams
from service.streaming.stream_writer import StreamTimes
from service.telemetry.metrics import Metrics
from streams.eventlog import EventLog
from streams.log.database import Database
from streams.tail.tail import Tail
from tests.integration.conftest import OpenLog
from tests.support.recording_wire import RecordingWire
from tests.support.signing import HMAC_SECRET, TOKEN_SECRET
from tests.support.waiting import wait_until


def _streams(
    log: EventLog, clock: Callable[[], float] = time.monotonic
) -> tuple[Metrics, OpenStreams]:
    settings = Settings(
        database_url="postgresql://unused",
        redis_url="redis://unused",
        hmac_secrets=(HMAC_SECRET,),
        token_secrets=(TOKEN_SECRET,),
        heartbeat_s=0.1,
    )
    metrics = Metrics(CollectorRegistry())
    return metrics, OpenStreams(log, AccessControl(log, clock), metrics, settings)


def _connection(
    log: EventLog,
    metrics: Metrics,
    streams: OpenStreams,
    tail: Tail,
    wire: RecordingWire,
    user: str,
    member_since: float,
) -> Connection:
    return Connection(
        wire, streams.enter(tail), log.reader(tail, 0), metrics, StreamTimes(2000, 30),
        StreamRequest(
            connection_id=user, project_id=tail.project_id, user_id=user, cursor=None, reset=None,
            start=None, heartbeat_s=15.0,
            expires_at_s=None, member_since=member_since, headers=[],
        ),
    )  # fmt: skip


async def test_members_are_looked_up_again_within_30_s() -> None:
    """§3: rechecked at least every 30 s; without notices at all within the 5 s of a removal."""
    assert rechecks.AFTER_S + rechecks.EVERY_S < 30
    assert rechecks.AFTER_WITHOUT_NOTICES_S + rechecks.EVERY_S < 5


@contextlib.asynccontextmanager
async def _serving(streams: OpenStreams, *connections: Connection) -> AsyncIterator[None]:
    """The pulse, and these connections, until the end of the block."""
    async with asyncio.TaskGroup() as group:
        pulse = group.create_task(streams.run())
        served = [group.create_task(streams.serve(connection)) for connection in connections]
        yield
        for connection in connections:
            connection.close("shutdown")
        await asyncio.wait(served)
        pulse.cancel()


def _said(wire: RecordingWire) -> list[dict[str, object]]:
    return wire.named("stream.closing")


REVOKED = {"reason": "access_revoked", "reconnect": False}


async def test_a_stream_ends_with_its_membership_without_a_notice(
    open_log: OpenLog, database: Database, project: str
) -> None:
    """§3: the row is gone and no notice came; others stay."""
    log = await open_log()
    metrics, streams = _streams(log)
    await log.projects.add_member(project, "leaver")
    async with log.tails.reading(project) as tail:
        wires = {user: RecordingWire() for user in ("owner", "leaver")}
        connections = [
            _connection(log, metrics, streams, tail, wire, user, time.monotonic())
            for user, wire in wires.items()
        ]
        async with _serving(streams, *connections):
            for wire in wires.values():
                await wait_until(lambda wire=wire: wire.named("stream.live") != [], what="live")
            await database.execute("DELETE FROM project_members WHERE project_id = $1", project)
            for connection in connections:
                connection.member_since -= rechecks.AFTER_S + 1
            await wait_until(lambda: wires["leaver"].finished, what="the leaver's end")
            assert _said(wires["leaver"]) == [REVOKED]
            # Both were looked up together.
            assert not wires["owner"].finished


async def test_a_removal_between_the_check_and_the_opening_is_not_missed(
    open_log: OpenLog, project: str
) -> None:
    """G9: its notice found no stream to end, since the stream was still on its way."""
    log = await open_log()
    metrics, streams = _streams(log)
    access = streams.access
    await log.projects.add_member(project, "leaver")
    assert await access.is_member(project, "leaver")
    member_since = access.confirmed_at(project, "leaver")
    async with log.tails.reading(project) as tail:
        wire = RecordingWire()
        connection = _connection(log, metrics, streams, tail, wire, "leaver", member_since)
        await log.projects.remove_member(project, "leaver")
        streams.close_user(project, "leaver")
        await access.revoked(project, "leaver")
        async with asyncio.timeout(10):
            await streams.serve(connection)
        assert [block.split(b"\n")[0] for block in wire.blocks[-1:]] == [b"event: stream.closing"]
        assert _said(wire) == [REVOKED]
        assert wire.named("stream.open") == []
        streams.leave(tail)


async def test_who_is_made_a_member_again_may_open(open_log: OpenLog, project: str) -> None:
    """A removal counts against what was confirmed before it alone."""
    log = await open_log()
    metrics, streams = _streams(log)
    access = streams.access
    await access.revoked(project, "back")
    await log.projects.add_member(project, "back")
    assert await access.is_member(project, "back")
    async with log.tails.reading(project) as tail:
        wire = RecordingWire()
        since = access.confirmed_at(project, "back")
        connection = _connection(log, metrics, streams, tail, wire, "back", since)
        async with _serving(streams, connection):
            await wait_until(lambda: wire.named("stream.live") != [], what="live")
        streams.leave(tail)


async def test_a_removal_that_nobody_here_was_told_of_ends_an_opening_stream_soon(
    open_log: OpenLog, database: Database, project: str
) -> None:
    """G9: another process removed the user before this one read the project's notices."""
    log = await open_log()
    metrics, streams = _streams(log)
    await log.projects.add_member(project, "leaver")
    assert await streams.access.is_member(project, "leaver")
    member_since = streams.access.confirmed_at(project, "leaver")
    await database.execute("DELETE FROM project_members WHERE project_id = $1", project)
    async with log.tails.reading(project) as tail:
        wire = RecordingWire()
        connection = _connection(log, metrics, streams, tail, wire, "leaver", member_since)
        async with _serving(streams, connection):
            # Long before AFTER_S.
            await wait_until(lambda: wire.finished, what="the end")
            assert _said(wire) == [REVOKED]
        streams.leave(tail)


class _Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


async def test_all_that_are_due_are_asked_for_in_one_question(
    open_log: OpenLog, project: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """W7: a crowd that opens at once costs one question more, and not on its way."""
    log = await open_log()
    clock = _Clock()
    metrics, streams = _streams(log, clock)
    questions: list[int] = []
    ask = log.projects.which_are_members

    async def ask_and_note(pairs: list[tuple[str, str]]) -> set[tuple[str, str]]:
        questions.append(len(pairs))
        return await ask(pairs)

    monkeypatch.setattr(log.projects, "which_are_members", ask_and_note)
    users = [f"u{number}" for number in range(100)]
    for user in users:
        await log.projects.add_member(project, user)
    async with log.tails.reading(project) as tail:
        opened = [
            _connection(log, metrics, streams, tail, RecordingWire(), user, clock.now_s)
            for user in users
        ]
        watch = rechecks.Rechecks(log, streams.access, lambda: opened)
        await watch.once()
        assert questions == []  # notices do not arrive for certain yet: too early to ask
        clock.now_s += 1.5
        await watch.once()
        assert questions == [100]
        for _ in range(5):
            clock.now_s += rechecks.AFTER_S / 5
            await watch.once()
        assert questions == [100]
        clock.now_s += 0.1
        await watch.once()
        assert questions == [100, 100]
        # Notices do not arrive at all.
        monkeypatch.setattr(streams.access, "notices_since", lambda _: float("inf"))
        clock.now_s += rechecks.AFTER_WITHOUT_NOTICES_S + 0.1
        await watch.once()
        assert questions == [100, 100, 100]
        assert not any(connection.is_closing for connection in opened)
        for _ in opened:
            streams.leave(tail)


async def test_a_token_ends_in_time_though_postgres_hangs(
    open_log: OpenLog, project: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """§3: within 5 s of its token's expiry, whatever the question for members waits for."""
    log = await open_log()
    metrics, streams = _streams(log)
    asked = asyncio.Event()

    async def hang(_: object) -> set[tuple[str, str]]:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(log.projects, "which_are_members", hang)
    monkeypatch.setattr(rechecks, "_TIMEOUT_S", 3600.0)
    async with log.tails.reading(project) as tail:
        wire = RecordingWire()
        connection = _connection(log, metrics, streams, tail, wire, "owner", float("-inf"))
        async with _serving(streams, connection):
            await wait_until(asked.is_set, what="the question")
            connection.expires_at_s = time.time() - 1
            await wait_until(lambda: wire.finished, what="the end")
            assert _said(wire) == [{"reason": "token_expired", "reconnect": False}]
        streams.leave(tail)


async def test_a_stream_that_was_let_in_just_before_the_end_says_goodbye(
    open_log: OpenLog, project: str
) -> None:
    """§6: it was on its way when draining began, so nobody could tell it."""
    log = await open_log()
    metrics, streams = _streams(log)
    async with log.tails.reading(project) as tail:
        wire = RecordingWire()
        since = time.monotonic()
        connection = _connection(log, metrics, streams, tail, wire, "owner", since)
        draining = asyncio.create_task(streams.drain())
        await wait_until(lambda: streams.draining, what="the drain")
        async with asyncio.timeout(10):
            await streams.serve(connection)
        assert wire.named("stream.closing") == [{"reason": "shutdown", "reconnect": True}]
        streams.leave(tail)
        await draining
