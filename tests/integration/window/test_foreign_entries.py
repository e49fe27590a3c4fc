"""Entries in Redis by other writers: skipped, counted, logged once, harmless."""

from __future__ import annotations

import asyncio
import logging

import pytest

from service.operate.embedded import RedisServer
from streams.builds.build_news import BuildNews
from streams.eventlog import EventLog, EventLogConfig
from streams.model.events import NewMessage
from streams.model.ids import EntryId
from streams.model.shards import shard_of
from streams.runtime.observer import Observer
from streams.window import keys
from streams.window.redis_client import RedisClient
from streams.window.window import Window
from tests.integration.conftest import NewProject, OpenLog
from tests.support.follower import following
from tests.support.waiting import wait_until

QUICK = EventLogConfig(heads_poll_s=0.1)
_HIGHEST = 2**64 - 1


class _Counting(Observer):
    def __init__(self) -> None:
        self.skipped = 0

    def entries_skipped(self, entries: int) -> None:
        self.skipped += entries


async def _append(log: EventLog, project: str) -> None:
    await log.append(project, NewMessage(user_id="u", text="x"))


def _fields(event: str | bytes, data: str, at: str = "1") -> list[str | bytes]:
    return ["event", event, "data", data, "at", at]


@pytest.mark.parametrize(
    ("entry_id", "fields"),
    [
        ("2-1", ["x", "y"]),
        ("2-1", ["event", "build.status", "data", "{}"]),
        ("2-1", ["data", '{"entryId":"2-1"}', "event", "build.status", "at", "1"]),
        ("2-1", _fields("build.status", "{}")),
        ("2-1", _fields("build.status", '{"entryId":"2-2"}')),
        ("2-1", _fields("build.status", '{"entryId":"2-1"}', at="soon")),
        ("2-1", _fields("build.status", '{"entryId":"2-1"}', at="-1")),
        ("2-1", _fields(b"build.\xff", '{"entryId":"2-1"}')),
        ("2-1", _fields("x\ndata: y", '{"entryId":"2-1"}')),
        ("2-1", _fields("build.status", '{"entryId":"2-1"')),
        ("2-1", _fields("build.status", '{"entryId":"2-1",\n"x":1}')),
        ("2-1", _fields("build.status", f'{{"entryId":"2-1","x":{"[" * 5000}{"]" * 5000}}}')),
        ("2-1", _fields("message.new", '{"entryId":"2-1"}')),
        (f"2-{_HIGHEST}", _fields("build.status", f'{{"entryId":"2-{_HIGHEST}"}}')),
        ("3-0", _fields("build.status", "{}")),
        ("3-0", _fields("message.new", "{")),
        ("3-0", _fields("message.new", "no object")),
        ("3-0", ["message.new"] * 6),
        ("999999-0", ["x", "y"]),
        ("999999-0", _fields("message.new", '{"seq":999999}')),
        ("999999-7", _fields("build.status", '{"entryId":"999999-7"}')),
        (f"{2**53}-0", _fields("message.new", "{}")),
        (f"{_HIGHEST}-{_HIGHEST}", _fields("message.new", "{}")),
    ],
)  # fmt: skip
async def test_foreign_entries_do_not_stop_delivery(
    open_log: OpenLog, redis_client: RedisClient, window: Window, project: str,
    entry_id: str, fields: list[str | bytes],
) -> None:  # fmt: skip
    """G2, G3: messages and transient entries are still delivered, and the window is healed."""
    both = await open_log(QUICK)
    async with following(both, project) as follower:
        for _ in range(2):
            await _append(both, project)
        await follower.wait_seq(2)
        await both.publisher.drained()
        await redis_client.call("XADD", keys.stream(project), entry_id, *fields)
        for seq in (3, 4, 5):
            await _append(both, project)
            await follower.wait_seq(seq)

        async def whole() -> bool:
            entries = await window.read_after(project, EntryId(0, 0), count=1000)
            return [each.id.seq for each in entries if each.id.k == 0] == [1, 2, 3, 4, 5]

        await wait_until(whole, what="the window as the log has it")
        # Through the stream again, not by the poll alone: that knows no transient entries.
        await both.append_transient(project, "message.delta", b'{"n":1}')
        await wait_until(
            lambda: follower.events[-1].data.endswith(b'"n":1}'), what="a transient entry"
        )
        assert follower.seqs == [1, 2, 3, 4, 5]
    assert both.failed_part is None


async def test_a_resume_skips_foreign_entries(
    open_log: OpenLog, redis_client: RedisClient, project: str
) -> None:
    """G3: only entries that the service wrote are replayed from the window."""
    writing = await open_log()
    for _ in range(3):
        await _append(writing, project)
    await writing.publisher.drained()
    await redis_client.call("XADD", keys.stream(project), "3-1", "x", "y")
    reading = await open_log()
    async with following(reading, project, after=1) as follower:
        await follower.wait_seq(3)
        await _append(writing, project)
        await follower.wait_seq(4)
        assert [str(event.id) for event in follower.events] == ["2-0", "3-0", "4-0"]


async def test_foreign_entries_are_counted_and_logged_once_per_stream(
    open_log: OpenLog, redis_client: RedisClient, project: str, caplog: pytest.LogCaptureFixture
) -> None:
    """§9: `stream_entries_skipped_total`; a flood of entries does not flood the logs."""
    observer = _Counting()
    both = await open_log(QUICK, observer=observer)
    with caplog.at_level(logging.WARNING, "streams.window.entries"):
        async with following(both, project) as follower:
            await _append(both, project)
            await follower.wait_seq(1)
            await both.publisher.drained()
            for k in range(1, 21):
                await redis_client.call("XADD", keys.stream(project), f"1-{k}", "x", "y")
            await _append(both, project)
            await follower.wait_seq(2)
    assert observer.skipped >= 20
    assert len(caplog.records) == 1


async def test_foreign_signals_are_skipped(
    open_log: OpenLog, redis_client: RedisClient, project: str
) -> None:
    """§1: ephemeral events are still delivered, also after the highest id of a stream."""
    both = await open_log(QUICK)
    key = keys.signals(shard_of(project))
    heard: list[tuple[str, str, bytes]] = []
    both.tails.on_notice(lambda *signal: heard.append(signal))
    async with following(both, project):
        await wait_until(lambda: both.tails.lanes.stuck() == [], what="the lane")
        await redis_client.call("XADD", key, "*", "x", "y")
        await redis_client.call("XADD", key, "*", "project", b"\xff", "event", "e", "data", "{}")
        await redis_client.call(
            "XADD", key, "*", "project", project, "event", "e\n", "data", "{}"
        )  # fmt: skip
        await redis_client.call(
            "XADD", key, "*", "project", project, "event", "e", "data", b"\xff\n"
        )  # fmt: skip
        await redis_client.call("XADD", key, f"{_HIGHEST}-{_HIGHEST}", "x", "y")

        async def said() -> bool:
            with_gone: list[bool] = []
            try:
                await both.tails.lanes.signal(project, "typing.start", b"{}")
            except Exception:  # noqa: BLE001 - the stream is still full
                with_gone.append(False)
            return bool(heard)

        await wait_until(said, what="a signal")
    assert set(heard) == {(project, "typing.start", b"{}")}
    assert both.failed_part is None


async def test_a_key_that_is_no_stream_does_not_end_the_reads_of_its_shard(
    own_redis: RedisServer, open_log: OpenLog, new_project: NewProject
) -> None:
    """I3: Redis refuses an XREAD that names it; it is deleted, and healed from the log."""
    broken = await new_project()
    neighbour = await new_project()
    while shard_of(neighbour) != shard_of(broken):
        neighbour = await new_project()
    both = await open_log(QUICK, redis_url=own_redis.url)
    client = RedisClient(own_redis.url)
    async with following(both, broken) as one, following(both, neighbour) as other:
        await _append(both, broken)
        await one.wait_seq(1)
        await both.publisher.drained()
        await client.call("DEL", keys.stream(broken))
        await client.call("SET", keys.stream(broken), "no stream", "PX", 600_000)
        for project, follower in ((broken, one), (neighbour, other)):
            await _append(both, project)
            await follower.wait_seq(2 if project == broken else 1)
        await wait_until(lambda: both.tails.lanes.stuck() == [], what="the lane")
        await wait_until(lambda: both.health.delivers, what="delivery by Redis")

        async def is_replaced() -> bool:
            return await client.call("TYPE", keys.stream(broken)) in (b"stream", "stream")

        await wait_until(is_replaced, what="a stream in place of the foreign key")
        await both.append_transient(broken, "message.delta", b'{"n":1}')
        await wait_until(lambda: one.events[-1].data.endswith(b'"n":1}'), what="an entry")
    await client.close()


async def test_foreign_news_of_builds_are_skipped(redis_client: RedisClient) -> None:
    """§8: a worker still receives news after entries that it cannot parse."""
    news = BuildNews(redis_client)
    heard: list[tuple[str, str]] = []
    hearing = asyncio.create_task(news.hear(lambda *each: heard.append(each)))

    async def told() -> bool:
        await redis_client.call("XADD", keys.build_news(), "*", "x", "y")
        await redis_client.call("XADD", keys.build_news(), "*", "news", b"\xff", "id", b"\xff")
        await news.announce("queued", "b1")
        return bool(heard) or hearing.done()

    await wait_until(told, what="the news")
    assert not hearing.done()
    assert set(heard) == {("queued", "b1")}
    hearing.cancel()
    await asyncio.gather(hearing, return_exceptions=True)
