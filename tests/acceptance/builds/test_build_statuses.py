"""docs/protocol.md §6, §8 and G7: how statuses and end messages of builds reach streams."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import pytest
import redis

from service.operate.embedded import PostgresServer, RedisServer
from streams import EntryId, EventLog
from streams.window import keys
from tests.acceptance.builds.conftest import ONE_ATTEMPT, SLOW_COMMAND
from tests.support.build_environment import BuildEnvironment, ask, build_environment, ends
from tests.support.build_events import applied, changes, statuses
from tests.support.processes import ServiceProcess, service_environment
from tests.support.waiting import wait_until
from tests.support.workers import WorkerProcess


async def test_a_build_is_queued_runs_and_ends_with_a_message(
    home: BuildEnvironment, redis_server: RedisServer
) -> None:
    """§8: the statuses are entries `n-k` without SSE id; the end message comes last."""
    await home.worker()
    client = await home.client()
    asked = await ask(home.api, home.project, "c1")
    await client.wait_seq(2)
    assert (asked.success, asked.queued, asked.status, asked.seq) == (True, True, "queued", 1)
    assert changes(client.events(), asked.build_id) == ONE_ATTEMPT
    # A status has no SSE id: the client's last event id stays that of the message before it.
    assert {event.event_id for event in client.events("build.status")} == {"1"}
    with redis.Redis.from_url(redis_server.url) as other:
        entries = other.xrange(keys.stream(home.project))
    announced = {
        entry_id.decode(): msgspec.json.decode(fields[b"data"])["entryId"]
        for entry_id, fields in entries
        if fields[b"event"] == b"build.status"
    }
    assert list(announced) == [f"1-{k}" for k in range(1, len(announced) + 1)]
    assert list(announced) == list(announced.values())
    # The end message is the last entry.
    assert entries[-1][1][b"event"] == b"message.new"
    assert [status.entry_id for status in statuses(client.events())] == list(announced)
    (end,) = ends(await home.api.log(home.project))
    message = msgspec.json.decode(end.data)
    assert message["metadata"]["build_id"] == asked.build_id
    assert message["metadata"]["response_data"]["type"] == "build_completed"
    assert message["content"]["actor_type"] == "worker"
    assert message["content"]["mode"] == "build"


async def test_statuses_are_replayed_on_resume(home: BuildEnvironment) -> None:
    """§6: a replay includes the transient entries between and after the missed messages."""
    await home.worker()
    asked = await ask(home.api, home.project)
    await home.wait_status(asked.build_id, "completed")
    client = await home.client(from_seq=0)
    await client.wait_seq(2)
    assert changes(client.events(), asked.build_id) == ONE_ATTEMPT
    assert all(status.entry_id for status in statuses(client.events()))


@pytest.mark.parametrize("from_seq", [None, 0, 1])
async def test_an_opening_stream_sends_the_state_of_a_running_build(
    home: BuildEnvironment, from_seq: int | None
) -> None:
    """§6 step 3: it is sent once, before `stream.live`, with or without a cursor."""
    await home.worker(SLOW_COMMAND)
    asked = await ask(home.api, home.project)
    await home.wait_status(asked.build_id, "in_progress")
    client = await home.client(from_seq)
    names = [event.name for event in client.events()]
    before_live = client.events()[: names.index("stream.live")]
    shown = statuses(before_live, asked.build_id)
    assert shown[-1].change == ("in_progress", 1)
    revisions = [status.metadata["revision"] for status in shown]
    assert revisions == sorted(set(revisions))


async def test_a_build_with_much_output_neither_floods_the_stream_nor_loses_a_status(
    home: BuildEnvironment, redis_server: RedisServer
) -> None:
    """10,000 lines make fewer than 20 entries, and they push no message out of the window."""
    await home.api.request(
        "POST", f"/v1/projects/{home.project}/chat/messages/batch",
        {"messages": [{"message": f"m{n}"} for n in range(250)]},
    )  # fmt: skip
    program = (
        "import json;"
        "[print(json.dumps({'progress': n / 100, 'step': f's{n}'})) for n in range(10000)]"
    )
    await home.worker(f'{sys.executable} -c "{program}"')
    client = await home.client(from_seq=250)
    asked = await ask(home.api, home.project)
    await client.wait_seq(252)
    shown = statuses(client.events(), asked.build_id)
    assert changes(client.events(), asked.build_id) == ONE_ATTEMPT
    assert len(shown) < 20
    assert (shown[-1].content.progress, shown[-1].content.step) == (100.0, "s9999")
    with redis.Redis.from_url(redis_server.url) as other:
        ids = [entry_id for entry_id, _ in other.xrange(keys.stream(home.project))]
    assert sum(entry_id.endswith(b"-0") for entry_id in ids) == 200


async def test_the_documented_append_status_example_sends_statuses(
    home: BuildEnvironment, tmp_path: Path
) -> None:
    """Library: `append_status` adds `build.status` entries to the stream, as workers do."""
    client = await home.client()
    await home.api.post(home.project, "hello")
    example = WorkerProcess(
        "append-status", tmp_path, home.environment,
        sys.executable, "docs/examples/append_status.py", home.project, "alice",
    )  # fmt: skip
    async with example:
        await client.wait_until(lambda c: len(c.events("build.status")) == 4, timeout_s=10)
    assert [status.entry_id for status in statuses(client.events())] == [
        "1-1", "1-2", "1-3", "1-4",
    ]  # fmt: skip


async def test_a_status_committed_but_not_published_reaches_clients(
    home: BuildEnvironment, builds_database: str, redis_server: RedisServer
) -> None:
    """As when a worker dies between commit and publish: both status and message arrive."""
    client = await home.client()
    asked = await ask(home.api, home.project)
    async with EventLog.open(builds_database, redis_server.url) as log:
        rows = log.builds._rows
        (build,) = await rows.leases.claim("mute")
        await rows.ends.finish(build, "completed")
        await client.wait_seq(2)
        await client.wait_until(
            lambda c: applied(c.events(), asked.build_id) == ("completed", 1), timeout_s=5
        )
    assert changes(client.events(), asked.build_id) == ONE_ATTEMPT


async def test_builds_continue_without_redis(
    postgres: PostgresServer, database_url: str, tmp_path: Path
) -> None:
    """G7: open streams get statuses without Redis; after its restart the window has them all."""
    with RedisServer(tmp_path / "redis") as own_redis:
        environment = service_environment(database_url, own_redis.url)
        async with ServiceProcess("service", tmp_path, environment) as service:
            async with build_environment(service, "p", tmp_path, environment) as home:
                client = await home.client()
                await home.api.post(home.project, "hello")
                await client.wait_seq(1)
                own_redis.kill()
                await home.worker()
                asked = await ask(home.api, home.project)
                await client.wait_seq(3)
                await client.wait_until(
                    lambda c: applied(c.events(), asked.build_id) == ("completed", 1), timeout_s=5
                )
                assert changes(client.events(), asked.build_id) == ONE_ATTEMPT
                own_redis.start()
                with redis.Redis.from_url(own_redis.url) as other:

                    def published() -> list[tuple[str, int]]:
                        found = []
                        for _, fields in other.xrange(keys.stream(home.project)):
                            data = msgspec.json.decode(fields[b"data"])
                            if fields[b"event"] == b"build.status":
                                found.append((data["status"], data["content"]["attempt"]))
                        return list(dict.fromkeys(found))

                    await wait_until(
                        lambda: published() == ONE_ATTEMPT, what="the window's statuses"
                    )
                    ids = [EntryId.parse(i) for i, _ in other.xrange(keys.stream(home.project))]
                    assert [entry.seq for entry in ids if entry.k == 0] == [1, 2, 3]
                assert applied(client.events(), asked.build_id) == ("completed", 1)
