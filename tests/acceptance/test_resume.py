"""docs/protocol.md §2, G2, G3, §6: resume at every depth, also after data loss in Redis."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import redis.asyncio

from streams.window import keys
from tests.acceptance.conftest import NewProject, Project, Services
from tests.support.api import Api
from tests.support.checker import check
from tests.support.history import LogRow, Post
from tests.support.signing import token
from tests.support.sse_client import SseClient
from tests.support.waiting import wait_until

DEEP = 5300


@pytest.fixture(scope="module")
async def deep(services: Services) -> AsyncIterator[Project]:
    """A project with thousands of messages, to which no test posts."""
    async with Api(services.a.url, "owner") as api:
        await api.create_project("deep")
        project = Project("deep", api, token("owner"))
        await project.fill(DEEP)
        yield project


@contextlib.asynccontextmanager
async def _redis(services: Services) -> AsyncIterator[Any]:
    client: Any = redis.asyncio.Redis.from_url(services.redis.url)
    try:
        yield client
    finally:
        await client.aclose()


async def _resumed(
    services: Services,
    project: Project,
    cursor: int,
    *,
    process: str = "a",
    upto: int = 0,
) -> SseClient:
    """Connect with this cursor, wait for live and for seq `upto`, and return the closed client.

    A process that already tails the project may read new messages after the stream is live:
    those arrive as live messages, not as replay.
    """
    url = services.a.url if process == "a" else services.b.url
    async with SseClient("c", [url], project.id, project.token, from_seq=None) as client:
        client.cursor = str(cursor)
        await client.wait_live()
        await client.wait_seq(upto)
    return client


async def _check_stream(project: Project, client: SseClient) -> None:
    log: list[LogRow] = await project.api.log(project.id)
    posts = [Post(project.id, row.user_id, row.client_msg_id or "", row.text) for row in log]
    # Only violations of streams count: the batches were posted without client ids.
    report = check(posts=posts, acknowledgements=[], clients=[client.history()], log=log)
    wrong = [each for each in report.violations if each.client is not None]
    assert wrong == [], "\n".join(map(str, wrong))


@pytest.mark.parametrize("process", ["a", "b"])
@pytest.mark.parametrize("behind", [0, 1, 199, 200, 201, 5000])
async def test_resume_replays_all_missed_messages_or_announces_the_missing_range(
    services: Services, deep: Project, behind: int, process: str
) -> None:
    """G3: up to 200 messages are replayed; `replay.end` reports the range beyond them."""
    client = await _resumed(services, deep, DEEP - behind, process=process)
    first = DEEP - behind + 1
    assert [int(event.event_id) for event in client.events("message.replay")] == list(
        range(first, min(DEEP, first + 199) + 1)
    )
    assert len(client.events("replay.end")) == (1 if behind > 200 else 0)
    await _check_stream(deep, client)


@pytest.mark.parametrize("below", [0, 1])
async def test_resume_at_the_trim_edge_of_the_window(
    services: Services, new_project: NewProject, below: int
) -> None:
    """G2: Redis serves cursor `lo - 1`; Postgres serves the cursor below it, without a gap."""
    project = await new_project(services.a)
    await project.fill(300)
    async with _redis(services) as client:
        key = keys.stream(project.id)

        async def trimmed() -> bool:
            return bool(await client.xlen(key) == 200)

        await wait_until(trimmed, what="the window")
        ((oldest, _),) = await client.xrange(key, count=1)
        lo = int(oldest.split(b"-")[0])
    assert lo == 101
    # Process b does not tail this project yet, so it reads the window.
    resumed = await _resumed(services, project, lo - 1 - below, process="b")
    seqs = [int(event.event_id) for event in resumed.events("message.replay")]
    assert seqs == list(range(lo - below, min(300, lo - below + 199) + 1))
    source = msgspec.json.decode(resumed.events("stream.open")[0].data)["source"]
    assert source == ("redis" if below == 0 else "postgres")


async def test_resume_after_flushall_misses_nothing(services: Services, project: Project) -> None:
    """G2: `FLUSHALL` between disconnect and reconnect loses no message."""
    await project.fill(50)
    async with _redis(services) as client:
        await client.flushall()
    resumed = await _resumed(services, project, 10, process="b")
    assert [int(e.event_id) for e in resumed.events("message.replay")] == list(range(11, 51))
    await _check_stream(project, resumed)


async def test_messages_after_flushall_reach_open_streams(
    services: Services, project: Project
) -> None:
    """G2: flushing Redis never makes a client miss or reorder a message."""
    await project.fill(5)
    urls = [services.b.url]
    async with SseClient("f", urls, project.id, project.token, from_seq=0) as client:
        await client.wait_live()
        async with _redis(services) as store:
            await store.flushall()
        await project.fill(10)
        await client.wait_seq(10)
        assert client.reconnects == 0
    await _check_stream(project, client)


async def test_resume_from_a_restored_stale_stream_misses_nothing(
    services: Services, project: Project
) -> None:
    """G2: a stale window is detected; the messages it lacks come from Postgres."""
    await project.fill(20)
    key = keys.stream(project.id)
    async with _redis(services) as store:

        async def published(count: int) -> None:
            async def there() -> bool:
                return bool(await store.xlen(key) == count)

            await wait_until(there, what="the publish")

        await published(20)
        old = await store.dump(key)
        await project.fill(40)
        await published(40)
        await store.delete(key)
        await store.restore(key, 600_000, old)
    resumed = await _resumed(services, project, 10, process="b")
    assert [int(e.event_id) for e in resumed.events("message.replay")] == list(range(11, 41))
    await _check_stream(project, resumed)
    await project.fill(41)
    again = await _resumed(services, project, 39, process="b", upto=41)
    received = again.events("message.replay", "message.new")
    assert [int(event.event_id) for event in received] == [40, 41]


async def test_a_client_that_reconnects_between_processes_misses_nothing(
    services: Services, project: Project
) -> None:
    """G3: a client may alternate between processes; no sticky sessions are needed."""
    cursor = 0
    got: list[int] = []
    for turn in range(6):
        head = (turn + 1) * 7
        await project.fill(head)
        resumed = await _resumed(services, project, cursor, process="ab"[turn % 2], upto=head)
        events = resumed.events("message.replay", "message.new")
        got += [int(event.event_id) for event in events]
        assert resumed.cursor is not None
        cursor = int(resumed.cursor)
    assert got == list(range(1, 43))


async def test_without_a_cursor_a_stale_stream_is_not_replayed_as_new(
    services: Services, project: Project
) -> None:
    """§6: without a cursor a stream is live from the head of the log, not of the window."""
    await project.fill(5)
    key = keys.stream(project.id)
    async with _redis(services) as store:

        async def published(count: int) -> bool:
            return bool(await store.xlen(key) == count)

        await wait_until(lambda: published(5), what="the publish")
        old = await store.dump(key)
        await project.fill(30)
        await wait_until(lambda: published(30), what="the publish")
        await store.delete(key)
        await store.restore(key, 600_000, old)
    urls = [services.b.url]
    async with SseClient("n", urls, project.id, project.token, from_seq=None) as client:
        await client.wait_live()
        await project.fill(31)
        await client.wait_seq(31)
    assert [event.event_id for event in client.events("message.new")] == ["31"]
