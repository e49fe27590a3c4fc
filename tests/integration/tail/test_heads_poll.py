"""The heads poll: crashes, outages and lost streams are harmless (docs/protocol.md G2, G3, G7)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator

import pytest

from service.operate.embedded import RedisServer
from streams.eventlog import EventLog, EventLogConfig
from streams.log.database import Database
from streams.log.log import Log, Unit
from streams.model.errors import LogRestored
from streams.model.events import NewMessage, encode, prepare
from streams.model.ids import EntryId
from streams.runtime.observer import Observer
from streams.window import keys
from streams.window.redis_client import RedisClient
from streams.window.window import Window
from tests.integration.conftest import NewProject, OpenLog
from tests.support.follower import following
from tests.support.waiting import wait_until

QUICK = EventLogConfig(heads_poll_s=0.1)
# No poll during the test: what arrives came another way.
NEVER = EventLogConfig(heads_poll_s=3600)


async def _commit_unpublished(log: Log, project: str, count: int = 1) -> None:
    """Commit as a process does that dies between commit and publish."""
    messages = tuple(prepare(NewMessage(user_id="u", text="x")) for _ in range(count))
    await log.append([Unit(project, messages)])


async def _append(log: EventLog, project: str, count: int = 1) -> None:
    await log.append_many(project, [NewMessage(user_id="u", text="x")] * count)


async def _window_seqs(window: Window, project: str) -> list[int]:
    found = await window.read_after(project, EntryId(0, 0), count=5000)
    return [each.id.seq for each in found if each.id.k == 0]


async def _wait_window(window: Window, project: str, expected: list[int]) -> None:
    async def there() -> bool:
        return await _window_seqs(window, project) == expected

    await wait_until(there, what="the window")


async def test_a_commit_that_was_never_published_reaches_readers(
    open_log: OpenLog, log: Log, project: str
) -> None:
    """docs/design.md: the poll covers a crash between commit and publish."""
    reading = await open_log(QUICK)
    async with following(reading, project) as follower:
        await _commit_unpublished(log, project, 3)
        await follower.wait_seq(3)
        assert follower.seqs == [1, 2, 3]


async def test_the_poll_heals_the_window_too(
    open_log: OpenLog, log: Log, window: Window, project: str
) -> None:
    """docs/design.md: a tail that is behind is filled from the log, and its window healed."""
    reading = await open_log(QUICK)
    async with following(reading, project):
        await _commit_unpublished(log, project, 3)
        await _wait_window(window, project, [1, 2, 3])


async def test_the_first_reader_gets_what_was_never_published(
    open_log: OpenLog, log: Log, project: str
) -> None:
    """docs/design.md: the next reader of the project heals what a dead process left."""
    await _commit_unpublished(log, project, 3)
    reading = await open_log(NEVER)
    async with following(reading, project) as follower:
        await follower.wait_seq(3)


async def test_a_message_after_unpublished_ones_comes_after_them(
    open_log: OpenLog, log: Log, project: str
) -> None:
    """I3: a gap is filled before anything newer is shown."""
    reading, writing = await open_log(NEVER), await open_log(NEVER)
    async with following(reading, project) as follower:
        await _append(writing, project)
        await follower.wait_seq(1)
        await _commit_unpublished(log, project, 2)
        await _append(writing, project)
        await follower.wait_seq(4)
        assert follower.seqs == [1, 2, 3, 4]


async def test_flushall_under_a_reader_loses_nothing(
    open_log: OpenLog, redis_client: RedisClient, window: Window, project: str
) -> None:
    """G2: flushing Redis never makes a client miss or reorder a message."""
    reading, writing = await open_log(QUICK), await open_log(QUICK)
    async with following(reading, project) as follower:
        await _append(writing, project, 3)
        await follower.wait_seq(3)
        await redis_client.call("FLUSHALL")
        await _append(writing, project, 3)
        await follower.wait_seq(6)
        assert follower.seqs == [1, 2, 3, 4, 5, 6]
        await _wait_window(window, project, [1, 2, 3, 4, 5, 6])


async def test_a_stream_restored_from_an_old_state_loses_nothing(
    open_log: OpenLog, redis_client: RedisClient, window: Window, project: str
) -> None:
    """G2: restoring Redis never makes a client miss or reorder a message."""
    reading, writing = await open_log(QUICK), await open_log(QUICK)
    key = keys.stream(project)
    async with following(reading, project) as follower:
        await _append(writing, project, 3)
        await follower.wait_seq(3)
        await _wait_window(window, project, [1, 2, 3])
        old = await redis_client.call("DUMP", key)
        await _append(writing, project, 3)
        await follower.wait_seq(6)
        await _wait_window(window, project, [1, 2, 3, 4, 5, 6])
        await redis_client.call("DEL", key)
        await redis_client.call("RESTORE", key, 600_000, old)
        await _append(writing, project)
        await follower.wait_seq(7)
        assert follower.seqs == [1, 2, 3, 4, 5, 6, 7]
        await _wait_window(window, project, [1, 2, 3, 4, 5, 6, 7])


async def test_a_resume_from_a_restored_stream_is_complete(
    open_log: OpenLog, redis_client: RedisClient, window: Window, project: str
) -> None:
    """G2: a stale stream is not used alone: what it lacks comes from Postgres."""
    writing = await open_log(NEVER)
    key = keys.stream(project)
    await _append(writing, project, 3)
    await _wait_window(window, project, [1, 2, 3])
    old = await redis_client.call("DUMP", key)
    await _append(writing, project, 3)
    await _wait_window(window, project, [1, 2, 3, 4, 5, 6])
    await redis_client.call("DEL", key)
    await redis_client.call("RESTORE", key, 600_000, old)
    reading = await open_log(NEVER)
    async with following(reading, project, after=1) as follower:
        await follower.wait_seq(6)
        assert follower.seqs == [2, 3, 4, 5, 6]


async def test_transient_entries_of_a_stream_that_was_lost_and_restarted_are_delivered(
    open_log: OpenLog, redis_client: RedisClient, project: str
) -> None:
    """G6: at least once within the window, even with ids below the lane's position."""
    reading, writing = await open_log(QUICK), await open_log(NEVER)
    await _append(writing, project)
    async with following(reading, project) as follower:
        for _ in range(3):
            await writing.append_transient(project, "message.delta", b'{"n":1}')
        await wait_until(lambda: len(follower.events) == 4, what="three entries")
        await redis_client.call("FLUSHALL")
        other = await open_log(NEVER)
        await other.append_transient(project, "message.delta", b'{"n":2}')
        await wait_until(
            lambda: any(b'"n":2' in event.data for event in follower.events), what="the entry"
        )


async def test_a_stream_ahead_of_a_restored_log_is_replaced_when_it_is_read(
    open_log: OpenLog, database: Database, window: Window, log: Log, project: str
) -> None:
    """G2: the messages in the stream end at or before head."""
    writing = await open_log(NEVER)
    await _append(writing, project, 5)
    await _wait_window(window, project, [1, 2, 3, 4, 5])
    await _restore_log(database, project, 3)
    reading = await open_log(NEVER)
    async with following(reading, project) as follower:
        await follower.wait_seq(3)
        await _wait_window(window, project, [1, 2, 3])
        await _append(writing, project)
        await follower.wait_seq(4)
    newest = (await log.read(project))[-1]
    (entry,) = await window.read_after(project, EntryId(3, 0), count=5)
    assert entry.data == encode(newest)


async def test_a_follower_beyond_a_restored_log_gets_an_error(
    open_log: OpenLog, database: Database, project: str
) -> None:
    """G3: seqs only grow; a reader gets `LogRestored` when the log lacks what it was given."""
    both = await open_log(QUICK)
    async with following(both, project) as follower:
        await _append(both, project, 5)
        await follower.wait_seq(5)
        await _restore_log(database, project, 3)
        await wait_until(follower.task.done, what="the end of the follower")
        with pytest.raises(LogRestored):
            follower.task.result()


async def _restore_log(database: Database, project: str, head: int) -> None:
    """Take the log back to an earlier head, as a restored backup would be."""
    async with database.transaction() as session:
        await session.execute(
            "DELETE FROM messages WHERE project_id = $1 AND seq > $2", project, head
        )
        await session.execute("UPDATE projects SET last_seq = $2 WHERE id = $1", project, head)


# Redis down.


async def test_without_redis_messages_reach_open_readers(
    open_log: OpenLog, own_redis: RedisServer, project: str
) -> None:
    """G7: Redis being down fails no post and ends no stream."""
    both = await open_log(redis_url=own_redis.url)
    other = await open_log(redis_url=own_redis.url)
    async with following(both, project) as follower:
        await _append(other, project)
        await follower.wait_seq(1)
        await asyncio.to_thread(own_redis.kill)
        for _ in range(3):
            await _append(other, project, 2)
        await follower.wait_seq(7, timeout_s=5)
        assert follower.seqs == [1, 2, 3, 4, 5, 6, 7]


async def test_a_redis_that_hangs_does_not_delay_the_poll(
    open_log: OpenLog, own_redis: RedisServer, log: Log, project: str
) -> None:
    """G7: the poll delivers instead of Redis, so it must not wait for Redis."""
    patient = EventLogConfig(heads_poll_s=0.1, redis_timeout_s=60.0)
    reading = await open_log(patient, redis_url=own_redis.url)
    await _append(reading, project)
    async with following(reading, project) as follower:
        await reading.append_transient(project, "message.delta", b'{"n":1}')
        await wait_until(lambda: len(follower.events) == 2, what="a transient entry")
        os.kill(own_redis.pid, signal.SIGSTOP)
        try:
            for seq in (2, 3, 4):
                await _commit_unpublished(log, project)
                await follower.wait_seq(seq, timeout_s=20)
        finally:
            os.kill(own_redis.pid, signal.SIGCONT)


async def test_when_redis_returns_empty_nothing_is_missing(
    open_log: OpenLog, own_redis: RedisServer, project: str
) -> None:
    """docs/design.md: on return the tails heal the windows."""
    both = await open_log(redis_url=own_redis.url)
    client = RedisClient(own_redis.url)
    async with following(both, project) as follower:
        await _append(both, project, 3)
        await follower.wait_seq(3)
        await asyncio.to_thread(own_redis.kill)
        await _append(both, project, 3)
        await follower.wait_seq(6)
        await asyncio.to_thread(own_redis.start)
        await wait_until(lambda: both.health.redis_up, what="Redis")
        await _append(both, project)
        await follower.wait_seq(7)
        assert follower.seqs == [1, 2, 3, 4, 5, 6, 7]
        await _wait_window(Window(client), project, [1, 2, 3, 4, 5, 6, 7])
    await client.close()


async def test_without_redis_a_reader_can_start(open_log: OpenLog, log: Log, project: str) -> None:
    """G7: a stream opens, replays and continues from Postgres alone."""
    await _commit_unpublished(log, project, 3)
    both = await open_log(redis_url="redis://127.0.0.1:1/0")
    async with following(both, project, after=1) as follower:
        await follower.wait_seq(3)
        await _append(both, project)
        await follower.wait_seq(4)
        assert follower.seqs == [2, 3, 4]


# What is reported.


class _Counting(Observer):
    def __init__(self) -> None:
        self.found = 0
        self.healed = 0
        self.lag = 0

    def gap_found(self) -> None:
        self.found += 1

    def gap_healed(self) -> None:
        self.healed += 1

    def lagging(self, seqs: int) -> None:
        self.lag = max(self.lag, seqs)


async def test_a_gap_is_counted_when_found_and_when_healed(
    open_log: OpenLog, log: Log, project: str
) -> None:
    """§9: `stream_gaps_found_total`, `stream_gaps_healed_total`, `tail_lag_seqs`."""
    observer = _Counting()
    reading = await open_log(QUICK, observer=observer)
    async with following(reading, project) as follower:
        await _commit_unpublished(log, project, 3)
        await follower.wait_seq(3)
        await wait_until(lambda: observer.healed > 0, what="the count")
        assert observer.found > 0
        assert observer.lag == 3


async def test_no_gap_is_counted_when_there_is_none(
    open_log: OpenLog, project: str, new_project: NewProject
) -> None:
    """§9: operators look into gaps, so normal operation must count none."""
    observer = _Counting()
    both = await open_log(NEVER, observer=observer)
    async with _all_following(both, [project, await new_project()]):
        for _ in range(20):
            await _append(both, project)
        assert observer.found == 0


@contextlib.asynccontextmanager
async def _all_following(log: EventLog, projects: list[str]) -> AsyncIterator[None]:
    async with contextlib.AsyncExitStack() as stack:
        for project in projects:
            await stack.enter_async_context(following(log, project))
        yield


async def test_without_readers_nothing_lags(open_log: OpenLog) -> None:
    """§9, `tail_lag_seqs`: the gauge does not keep the lag of a tail that was dropped."""

    class Seen(Observer):
        lags: list[int] = []  # noqa: RUF012 - one instance

        def lagging(self, seqs: int) -> None:
            self.lags.append(seqs)

    observer = Seen()
    await open_log(QUICK, observer=observer)
    await wait_until(lambda: observer.lags != [], what="a poll that reports the lag")
    assert set(observer.lags) == {0}
