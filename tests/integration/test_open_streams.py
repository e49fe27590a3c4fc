"""All streams of a process: they end with membership (PROTOCOL.md §3) and at shutdown (§6)."""

from __future__ import annotations

import asyncio

import pytest
from prometheus_client import CollectorRegistry

from service import open_streams
from service.access import AccessControl
from service.connection import Connection, StreamTimes
from service.metrics import Metrics
from service.open_streams import OpenStreams
from service.settings import Settings
from streams.eventlog import EventLog
from streams.postgres import Database
from streams.tail import Tail
from tests.integration.conftest import OpenLog
from tests.support.recording_wire import RecordingWire
from tests.support.signing import HMAC_SECRET, TOKEN_SECRET
from tests.support.waiting import wait_until


def _streams(log: EventLog) -> tuple[Metrics, OpenStreams]:
    settings = Settings(
        database_url="postgresql://unused",
        redis_url="redis://unused",
        hmac_secrets=(HMAC_SECRET,),
        token_secrets=(TOKEN_SECRET,),
        heartbeat_s=0.1,
    )
    metrics = Metrics(CollectorRegistry())
    return metrics, OpenStreams(log, AccessControl(log), metrics, settings)


def _connection(
    log: EventLog,
    metrics: Metrics,
    streams: OpenStreams,
    tail: Tail,
    wire: RecordingWire,
    user: str,
) -> Connection:
    return Connection(
        wire, streams.enter(tail), log.reader(tail, 0), metrics, StreamTimes(2000, 30),
        connection_id=user, project_id=tail.project_id, user_id=user, cursor=None, reset=None,
        expires_at_s=None, headers=[],
    )  # fmt: skip


async def test_members_are_looked_up_again_within_30_s() -> None:
    """§3: rechecked at least every 30 s; a look-up takes one more tick of the pulse."""
    assert open_streams._RECHECK_AFTER_S + open_streams._RECHECK_EVERY_S + 1.0 < 30


async def test_a_stream_ends_with_its_membership_without_a_notice(
    open_log: OpenLog, database: Database, project: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """§3: the row is gone and no notice came; others stay."""
    monkeypatch.setattr(open_streams, "_RECHECK_AFTER_S", -1.0)
    monkeypatch.setattr(open_streams, "_RECHECK_EVERY_S", 0.0)
    log = await open_log()
    metrics, streams = _streams(log)
    await log.projects.add_member(project, "leaver")
    async with log.tails.reading(project) as tail, asyncio.TaskGroup() as group:
        pulse = group.create_task(streams.run())
        wires = {user: RecordingWire() for user in ("owner", "leaver")}
        for user, wire in wires.items():
            connection = _connection(log, metrics, streams, tail, wire, user)
            group.create_task(streams.serve(connection))
            await wait_until(lambda wire=wire: wire.named("stream.live") != [], what="live")
        await database.execute("DELETE FROM project_members WHERE project_id = $1", project)
        await wait_until(lambda: wires["leaver"].finished, what="the end of the leaver's stream")
        assert wires["leaver"].named("stream.closing") == [
            {"reason": "access_revoked", "reconnect": False}
        ]
        # Both were looked up together.
        assert not wires["owner"].finished
        pulse.cancel()
        for connection in streams.all():
            connection.close("shutdown")
        for _ in wires:
            streams.leave(tail)


async def test_a_stream_that_was_let_in_just_before_the_end_says_goodbye(
    open_log: OpenLog, project: str
) -> None:
    """§6: it was on its way when draining began, so nobody could tell it."""
    log = await open_log()
    metrics, streams = _streams(log)
    async with log.tails.reading(project) as tail:
        wire = RecordingWire()
        connection = _connection(log, metrics, streams, tail, wire, "owner")
        draining = asyncio.create_task(streams.drain())
        await wait_until(lambda: streams.draining, what="the drain")
        async with asyncio.timeout(10):
            await streams.serve(connection)
        assert wire.named("stream.closing") == [{"reason": "shutdown", "reconnect": True}]
        streams.leave(tail)
        await draining
