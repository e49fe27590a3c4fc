"""EventLog, the one object that users of the library hold: append, follow, history, close."""

from __future__ import annotations

import asyncio
import contextlib

import msgspec
import pytest

from streams import (
    BuildContent,
    BuildStatus,
    Closed,
    EntryId,
    EventLogConfig,
    IdempotencyMismatch,
    LogUnavailable,
    NewMessage,
    ProjectNotFound,
)
from streams.eventlog import EventLog
from streams.model.events import encode
from tests.integration.conftest import NewProject, OpenLog
from tests.support.follower import following
from tests.support.waiting import wait_until


def _message(text: str, client_msg_id: str | None = None) -> NewMessage:
    return NewMessage(user_id="u", text=text, client_msg_id=client_msg_id)


def _status(project: str, progress: int) -> BuildStatus:
    content = BuildContent("b", "v", 1, progress)
    return BuildStatus(project, "u", "in_progress", content, "2026-01-02T03:04:05.000006Z", {})


async def test_append_returns_the_committed_message(open_log: OpenLog, project: str) -> None:
    """G4: seq, id, time and `client_msg_id` as the log has them."""
    log = await open_log()
    message = await log.append(project, _message("hello", "c1"))
    page = await log.history(project)
    assert (message.seq, message.client_msg_id) == (1, "c1")
    assert [encode(each) for each in page.messages] == [encode(message)]


async def test_followers_get_the_committed_rows_data(open_log: OpenLog, project: str) -> None:
    """G1: broadcast with the committed row's data."""
    log = await open_log()
    async with following(log, project) as follower:
        message = await log.append(project, _message("hello"))
        await follower.wait_seq(1)
        assert follower.events[0].data == encode(message)
        assert follower.events[0].message() == message


async def test_every_process_gets_every_message(open_log: OpenLog, project: str) -> None:
    """G3: whatever the number of service processes."""
    one, two = await open_log(), await open_log()
    async with following(one, project) as a, following(two, project) as b:
        for number in range(10):
            await (one if number % 2 else two).append(project, _message(str(number)))
        for follower in (a, b):
            await follower.wait_seq(10)
            assert follower.seqs == list(range(1, 11))


async def test_following_from_now_on(open_log: OpenLog, project: str) -> None:
    """§6: no cursor at all means live from head."""
    log = await open_log()
    await log.append(project, _message("before"))
    async with following(log, project, after=None) as follower:
        await log.append(project, _message("after"))
        await follower.wait_seq(2)
        assert follower.seqs == [2]


async def test_following_from_a_cursor(open_log: OpenLog, project: str) -> None:
    """G3: every message after the cursor, then the new ones."""
    log = await open_log()
    await log.append_many(project, [_message(str(number)) for number in range(450)])
    async with following(log, project, after=7) as follower:
        await follower.wait_seq(450)
        await log.append(project, _message("next"))
        await follower.wait_seq(451)
        assert follower.seqs == list(range(8, 452))


async def test_a_follower_with_a_pause_misses_nothing(open_log: OpenLog, project: str) -> None:
    """§6: a slow consumer falls back to the log and misses nothing."""
    log = await open_log(EventLogConfig(tail_memory_bytes=1))
    seqs: list[int] = []

    async def slowly() -> None:
        async for event in log.follow(project, after=0):
            seqs.append(event.id.seq)
            if event.id.seq == 1:
                await log.append_many(project, [_message("x" * 1000)] * 500)
                await log.append_many(project, [_message("x" * 1000)] * 499)
            if event.id.seq == 1000:
                return

    task = asyncio.create_task(slowly())
    await log.append(project, _message("first"))
    async with asyncio.timeout(20):
        await task
    assert seqs == list(range(1, 1001))


async def test_a_build_status_comes_between_its_messages(open_log: OpenLog, project: str) -> None:
    """§2: the k-th transient entry after message n is `n-k`, with `entryId` in its data."""
    log = await open_log()
    async with following(log, project) as follower:
        await log.append(project, _message("a"))
        # Wait until the message is published, so that the status comes after it.
        await follower.wait_seq(1)
        assert await log.append_status(project, _status(project, 10)) == EntryId(1, 1)
        assert await log.append_status(project, _status(project, 20)) == EntryId(1, 2)
        await log.append(project, _message("b"))
        await follower.wait_seq(2)
    assert [(event.id, event.name) for event in follower.events] == [
        ((1, 0), "message.new"), ((1, 1), "build.status"), ((1, 2), "build.status"),
        ((2, 0), "message.new"),
    ]  # fmt: skip
    assert msgspec.json.decode(follower.events[1].data)["entryId"] == "1-1"


async def test_a_status_in_a_project_without_messages(open_log: OpenLog, project: str) -> None:
    """§2: it comes after message 0, before all messages."""
    log = await open_log()
    assert await log.append_status(project, _status(project, 10)) == EntryId(0, 1)
    async with following(log, project) as follower:
        await log.append(project, _message("a"))
        await follower.wait_seq(1)
        assert [event.id for event in follower.events] == [(0, 1), (1, 0)]


async def test_a_repeat_is_not_broadcast_again(open_log: OpenLog, project: str) -> None:
    """G5: adds nothing and answers with the first result."""
    one, two = await open_log(), await open_log()
    async with following(one, project) as follower:
        first = await one.append(project, _message("a", "c"))
        (again,) = await two.append_many(project, [_message("a", "c")])
        assert (again.duplicate, again.message) == (True, first)
        await one.append(project, _message("b"))
        await follower.wait_seq(2)
        assert follower.seqs == [1, 2]


async def test_equal_appends_in_two_processes_at_once_give_one_message(
    open_log: OpenLog, project: str
) -> None:
    """G5: it holds across processes."""
    logs = [await open_log(), await open_log()]
    results = await asyncio.gather(
        *(log.append_many(project, [_message("a", "c")]) for log in logs * 5)
    )
    assert {each.message.message_id for (each,) in results} == {results[0][0].message.message_id}
    assert sum(not each.duplicate for (each,) in results) == 1
    assert await logs[0].head(project) == 1


async def test_another_content_is_a_mismatch_in_another_process_too(
    open_log: OpenLog, project: str
) -> None:
    """G5: 409 `IDEMPOTENCY_MISMATCH`."""
    one, two = await open_log(), await open_log()
    await one.append(project, _message("a", "c"))
    with pytest.raises(IdempotencyMismatch):
        await two.append(project, _message("b", "c"))


async def test_writers_in_many_processes_leave_one_order(open_log: OpenLog, project: str) -> None:
    """G1, G3: every follower, in every process, sees 1..n in the same order."""
    logs = [await open_log() for _ in range(3)]
    async with contextlib.AsyncExitStack() as stack:
        followers = [await stack.enter_async_context(following(log, project)) for log in logs]

        async def write(log: EventLog, writer: int) -> None:
            for number in range(25):
                await log.append(project, _message(f"{writer}-{number}", f"{writer}-{number}"))

        await asyncio.gather(*(write(logs[w % 3], w) for w in range(8)))
        for follower in followers:
            await follower.wait_seq(200)
    assert [follower.seqs for follower in followers] == [list(range(1, 201))] * 3
    assert len({tuple(event.data for event in follower.events) for follower in followers}) == 1


async def test_one_tail_serves_all_followers_of_a_process(open_log: OpenLog, project: str) -> None:
    """docs/design.md: one reader per stream per process, not one per connection."""
    log = await open_log()
    async with following(log, project), following(log, project), following(log, project):
        assert len(log.tails) == 1


async def test_a_tail_without_readers_is_dropped(open_log: OpenLog, project: str) -> None:
    """Memory is used for projects that have readers, and for a while after."""
    log = await open_log(EventLogConfig(tail_linger_s=0.0, heads_poll_s=0.05))
    async with following(log, project):
        assert len(log.tails) == 1
    await wait_until(lambda: len(log.tails) == 0, what="the end of the tail")


async def test_readers_that_arrive_together_share_one_tail(open_log: OpenLog, project: str) -> None:
    """A thousand clients that reconnect at once make one tail."""
    log = await open_log()
    tails = await asyncio.gather(*(log.tails.acquire(project) for _ in range(50)))
    assert len({id(tail) for tail in tails}) == 1
    for tail in tails:
        log.tails.release(tail)


@pytest.mark.parametrize("what", ["append", "follow", "head"])
async def test_an_unknown_project_is_an_error(open_log: OpenLog, what: str) -> None:
    """`ProjectNotFound`; the service turns it into the answer for a stranger."""
    log = await open_log()

    async def ask() -> object:
        if what == "append":
            return await log.append("no-such-project", _message("x"))
        if what == "follow":
            return await anext(log.follow("no-such-project"))
        return await log.head("no-such-project")

    with pytest.raises(ProjectNotFound):
        await ask()


async def test_what_was_accepted_before_close_is_committed_and_published(
    open_log: OpenLog, new_project: NewProject, shared_database_url: str,
    redis_server: object,
) -> None:  # fmt: skip
    """§6, shutdown: finishes what is being committed and published."""
    project = await new_project()
    reading = await open_log(EventLogConfig(heads_poll_s=3600))
    async with following(reading, project) as follower:
        writing = await open_log()
        appends = [asyncio.create_task(writing.append(project, _message("x"))) for _ in range(20)]
        await asyncio.sleep(0)
        await writing.close()
        assert sorted([(await each).seq for each in appends]) == list(range(1, 21))
        await follower.wait_seq(20)


async def test_after_close_nothing_is_accepted(open_log: OpenLog, project: str) -> None:
    """An append raises `Closed`; closing again does nothing."""
    log = await open_log()
    await log.close()
    await log.close()
    with pytest.raises(Closed):
        await log.append(project, _message("x"))


async def test_closing_ends_followers(open_log: OpenLog, project: str) -> None:
    """A follower of a closed log gets `Closed` instead of waiting."""
    log = await open_log()
    async with following(log, project) as follower:
        await log.close()
        await wait_until(follower.task.done, timeout_s=5, what="the end of the follower")
        with pytest.raises(Closed):
            follower.task.result()


async def test_a_log_opens_before_its_servers_are_up(open_log: OpenLog) -> None:
    """A process may start before its servers; calls and `check` report that they are down."""
    async with EventLog.open("postgresql://x@127.0.0.1:1/x", "redis://127.0.0.1:1/0") as log:
        found = await log.check()
        assert None not in found.values()
        with pytest.raises(LogUnavailable):
            await log.append("p", _message("x"))


async def test_a_check_finds_both_servers(open_log: OpenLog) -> None:
    """`check` asks Postgres and Redis, and returns no problem when both answer."""
    log = await open_log()
    assert await log.check() == {"postgres": None, "redis": None}
