"""docs/protocol.md §8 and G7: builds, with real services, workers, Postgres and Redis."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Iterator
from itertools import count
from pathlib import Path

import httpx
import msgspec
import pytest
import redis

from service.operate.embedded import PostgresServer, RedisServer
from streams import EntryId, EventLog, NewMessage
from streams.model.errors import Unavailable
from streams.window import keys
from tests.support.api import Api
from tests.support.build_environment import (
    BuildEnvironment,
    ask,
    build_environment,
    children,
    ends,
    is_alive,
)
from tests.support.build_events import applied, changes, statuses
from tests.support.processes import ServiceProcess, service_environment
from tests.support.signing import token
from tests.support.sse_client import SseClient
from tests.support.waiting import wait_until
from tests.support.workers import WorkerProcess

_numbers = count(1)

# A thousand, by `make faults`, take half a minute of two cores.
_MANY = 1000 if os.environ.get("SEQSTREAM_ALL_FAULTS") else 200
UNDISTURBED = [("queued", 0), ("in_progress", 1), ("completed", 1)]
_SLOW = f"{sys.executable} -c 'import time; print(\"on it\", flush=True); time.sleep(60)'"


@pytest.fixture(scope="module")
def builds_database(postgres: PostgresServer, template_database: str) -> Iterator[str]:
    """URL of a database for this file: each test has a project of its own."""
    yield postgres.create_database("builds", template=template_database)
    postgres.psql('DROP DATABASE "builds" WITH (FORCE)')


@pytest.fixture(scope="module")
async def service(
    builds_database: str, redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[ServiceProcess]:
    """One service for this file; leases of a second."""
    environment = service_environment(
        builds_database, redis_server.url, {"SEQSTREAM_BUILD_LEASE_SECONDS": "1"}
    )
    async with ServiceProcess("service", tmp_path_factory.mktemp("builds"), environment) as process:
        yield process


@pytest.fixture
async def home(
    service: ServiceProcess, builds_database: str, postgres: PostgresServer, tmp_path: Path
) -> AsyncIterator[BuildEnvironment]:
    """A project on this file's servers; no builds are left behind for the next test's workers."""
    project = f"built-{next(_numbers)}"
    async with build_environment(service, project, tmp_path, service.environment) as made:
        yield made
    postgres.psql("DELETE FROM builds", database="builds")


async def test_a_build_from_its_question_to_its_end(
    home: BuildEnvironment, redis_server: RedisServer
) -> None:
    """§8: queued → in_progress → completed, entries `n-k` without SSE id, then the end message."""
    await home.worker()
    client = await home.client()
    asked = await ask(home.api, home.project, "c1")
    await client.wait_seq(2)
    assert (asked.success, asked.queued, asked.status, asked.seq) == (True, True, "queued", 1)
    assert changes(client.events(), asked.build_id) == UNDISTURBED
    # None of its own: the last event id stays that of the message before.
    assert {event.event_id for event in client.events("build.status")} == {"1"}
    with redis.Redis.from_url(redis_server.url) as other:
        entries = other.xrange(keys.stream(home.project))
    told = {
        entry_id.decode(): msgspec.json.decode(fields[b"data"])["entryId"]
        for entry_id, fields in entries
        if fields[b"event"] == b"build.status"
    }
    assert list(told) == [f"1-{k}" for k in range(1, len(told) + 1)]
    assert list(told) == list(told.values())
    # The end message is the last of it.
    assert entries[-1][1][b"event"] == b"message.new"
    assert [status.entry_id for status in statuses(client.events())] == list(told)
    (end,) = ends(await home.api.log(home.project))
    message = msgspec.json.decode(end.data)
    assert message["metadata"]["build_id"] == asked.build_id
    assert message["metadata"]["response_data"]["type"] == "build_completed"
    assert message["content"]["actor_type"] == "worker"
    assert message["content"]["mode"] == "build"


async def test_statuses_are_replayed_on_resume(home: BuildEnvironment) -> None:
    """§6: with the transient entries that stand among and after the missed messages."""
    await home.worker()
    asked = await ask(home.api, home.project)
    await home.wait_status(asked.build_id, "completed")
    client = await home.client(from_seq=0)
    await client.wait_seq(2)
    assert changes(client.events(), asked.build_id) == UNDISTURBED
    assert all(status.entry_id for status in statuses(client.events()))


async def test_a_repeat_asks_for_nothing_new(home: BuildEnvironment) -> None:
    """G5: the same client_msg_id gives the same build, also after it has ended."""
    await home.worker()
    first = await ask(home.api, home.project, "c1")
    again = await asyncio.gather(*(ask(home.api, home.project, "c1", status=200) for _ in range(5)))
    await home.wait_status(first.build_id, "completed")
    late = await ask(home.api, home.project, "c1", status=200)
    assert {(each.build_id, each.seq, each.status) for each in (first, *again, late)} == {
        (first.build_id, 1, "queued")
    }
    assert (
        len((await home.api.request("GET", f"/v1/projects/{home.project}/builds")).json()["builds"])
        == 1
    )


async def test_unfinished_builds_are_bounded(home: BuildEnvironment, tmp_path: Path) -> None:
    """§6: per project and per user over all projects; beyond it 429, but a repeat is answered."""
    limits = {"SEQSTREAM_MAX_BUILDS_PER_PROJECT": "2", "SEQSTREAM_MAX_BUILDS_PER_USER": "3"}
    other = f"{home.project}-other"
    # What another process took counts too.
    first = await ask(home.api, home.project, "c1")
    async with (
        ServiceProcess("limited", tmp_path, home.environment | limits) as limited,
        Api(limited.url, "alice") as api,
    ):
        await api.create_project(other)
        await ask(api, home.project, "c2")
        await _is_refused(api, home.project, "project")
        await ask(api, other, "c1")
        await _is_refused(api, other, "user")
        again = await ask(api, home.project, "c1", status=200)
        assert (again.build_id, again.seq) == (first.build_id, 1)
        for project, count in ((home.project, 2), (other, 1)):
            assert len(await api.log(project)) == count
            listed = (await api.request("GET", f"/v1/projects/{project}/builds")).json()
            assert len(listed["builds"]) == count
        # One that has ended makes room.
        path = f"/v1/projects/{home.project}/builds/{first.build_id}/cancel"
        assert (await api.request("POST", path)).status_code == 200
        await ask(api, home.project, "c3")


async def _is_refused(api: Api, project: str, whose: str) -> None:
    body = {"projectId": project, "message": "make it", "mode": "build", "client_msg_id": "more"}
    response = await api.request("POST", "/v1/chat/unified", body)
    assert (response.status_code, response.json()["code"]) == (429, "RATE_LIMITED")
    assert int(response.headers["Retry-After"]) > 0
    assert f"The {whose} has too many" in response.json()["error"]


async def test_another_attempt_finishes_what_a_killed_worker_began(home: BuildEnvironment) -> None:
    """§8: when it dies, another claims it after the lease as the next attempt; one end message."""
    first = await home.worker(_SLOW)
    client = await home.client()
    asked = await ask(home.api, home.project)
    await home.wait_status(asked.build_id, "in_progress")
    keeper, command = await children(first.pid, at_least=2)
    await first.kill()
    # What it was running must not go on beside the next attempt.
    await wait_until(lambda: not any(map(is_alive, (keeper, command))), what="the end of the build")
    await home.worker()
    await client.wait_seq(2)
    assert changes(client.events(), asked.build_id) == [
        ("queued", 0), ("in_progress", 1), ("in_progress", 2), ("completed", 2),
    ]  # fmt: skip
    assert len(ends(await home.api.log(home.project))) == 1


async def test_a_build_is_given_up_after_three_attempts(home: BuildEnvironment) -> None:
    """§8: after 3 attempts it fails, and says so."""
    asked = await ask(home.api, home.project)
    for attempt in (1, 2, 3):
        worker = await home.worker(_SLOW)

        async def begun(attempt: int = attempt) -> bool:
            path = f"/v1/projects/{home.project}/builds/{asked.build_id}"
            build = (await home.api.request("GET", path)).json()
            return (build["status"], build["attempt"]) == ("in_progress", attempt)

        await wait_until(begun, what=f"attempt {attempt}")
        await worker.kill()
    await home.worker()
    await home.wait_status(asked.build_id, "failed")
    (end,) = ends(await home.api.log(home.project))
    assert b'"type":"build_failed"' in end.data
    assert b"given up after 3 attempts" in end.data


@pytest.mark.parametrize("from_seq", [None, 0, 1])
async def test_a_stream_that_opens_shows_the_builds_state_at_once(
    home: BuildEnvironment, from_seq: int | None
) -> None:
    """§6 step 3: before `stream.live`, once, whether or not there is a cursor."""
    await home.worker(_SLOW)
    asked = await ask(home.api, home.project)
    await home.wait_status(asked.build_id, "in_progress")
    client = await home.client(from_seq)
    names = [event.name for event in client.events()]
    before_live = client.events()[: names.index("stream.live")]
    shown = statuses(before_live, asked.build_id)
    assert shown[-1].change == ("in_progress", 1)
    revisions = [status.metadata["revision"] for status in shown]
    assert revisions == sorted(set(revisions))


async def test_cancelling_a_queued_build_ends_it_at_once(home: BuildEnvironment) -> None:
    """Cancel: queued → failed with the message `cancelled`; the end of it is 409."""
    asked = await ask(home.api, home.project)
    path = f"/v1/projects/{home.project}/builds/{asked.build_id}/cancel"
    first, again = [await home.api.request("POST", path) for _ in range(2)]
    assert (first.status_code, first.json()["status"]) == (200, "failed")
    assert first.json()["message"] == "cancelled"
    assert (again.status_code, again.json()["status"]) == (200, "failed")
    assert len(ends(await home.api.log(home.project))) == 1


async def test_cancelling_a_running_build_kills_its_processes(home: BuildEnvironment) -> None:
    """Cancel: the worker ends it, and the command goes with its whole group."""
    script = "sleep 60 & sleep 60"
    worker = await home.worker(f'sh -c "{script}"')
    asked = await ask(home.api, home.project)
    await home.wait_status(asked.build_id, "in_progress")
    processes: list[int] = []

    async def all_run() -> bool:
        processes[:] = await children(worker.pid, at_least=0)
        return len(processes) == 4  # the keeper, sh, and its two

    await wait_until(all_run, what="the command's processes")
    response = await home.api.request(
        "POST", f"/v1/projects/{home.project}/builds/{asked.build_id}/cancel"
    )
    assert (response.status_code, response.json()["cancelRequested"]) == (202, True)
    await home.wait_status(asked.build_id, "failed")
    await wait_until(lambda: not any(map(is_alive, processes)), what="the end of its processes")


async def test_a_worker_that_is_stopped_gives_its_build_back(home: BuildEnvironment) -> None:
    """SIGTERM: the lease is released, so that another takes over at once."""
    first = await home.worker(_SLOW, SEQSTREAM_BUILD_LEASE_SECONDS="3600")
    asked = await ask(home.api, home.project)
    await home.wait_status(asked.build_id, "in_progress")
    assert await first.terminate() == 0
    await home.worker()
    await home.wait_status(asked.build_id, "completed")


async def test_a_build_that_takes_too_long_is_ended(home: BuildEnvironment) -> None:
    """SEQSTREAM_BUILD_TIMEOUT_SECONDS: the command is killed and the build fails."""
    await home.worker(_SLOW, SEQSTREAM_BUILD_TIMEOUT_SECONDS="0.5")
    asked = await ask(home.api, home.project)
    await home.wait_status(asked.build_id, "failed")
    (end,) = ends(await home.api.log(home.project))
    assert b"timed out" in end.data


async def test_the_command_gets_its_request_and_gives_its_result(home: BuildEnvironment) -> None:
    """§8: JSON on standard input, ids in the environment, `result` into `response_data`."""
    program = (
        "import json,os,sys; asked=json.loads(sys.stdin.readline());"
        "print(json.dumps({'message': 'done', 'result': {"
        "'text': asked['message'], 'build': os.environ['BUILD_ID'],"
        "'project': os.environ['PROJECT_ID'],"
        "'secrets': [n for n in os.environ if n.startswith('SEQSTREAM_') or n[-4:] == '_URL']}}))"
    )
    await home.worker(f'{sys.executable} -c "{program}"')
    asked = await ask(home.api, home.project)
    await home.wait_status(asked.build_id, "completed")
    (end,) = ends(await home.api.log(home.project))
    assert msgspec.json.decode(end.data)["metadata"]["response_data"]["result"] == {
        "text": "make it", "build": asked.build_id, "project": home.project, "secrets": [],
    }  # fmt: skip


async def test_a_command_that_fails(home: BuildEnvironment) -> None:
    """§8: exit 0 is completed; anything else is failed, with the last thing it said."""
    await home.worker("sh -c 'echo no disk left; exit 3'")
    asked = await ask(home.api, home.project)
    await home.wait_status(asked.build_id, "failed")
    (end,) = ends(await home.api.log(home.project))
    assert b"ended with status 3: no disk left" in end.data


async def test_a_chatty_build_neither_floods_the_stream_nor_loses_a_status(
    home: BuildEnvironment, redis_server: RedisServer
) -> None:
    """10,000 lines make a few entries; no message leaves the window for them."""
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
    assert changes(client.events(), asked.build_id) == UNDISTURBED
    assert len(shown) < 20
    assert (shown[-1].content.progress, shown[-1].content.step) == (100.0, "s9999")
    with redis.Redis.from_url(redis_server.url) as other:
        ids = [entry_id for entry_id, _ in other.xrange(keys.stream(home.project))]
    assert sum(entry_id.endswith(b"-0") for entry_id in ids) == 200


async def test_a_worker_outside_reports_over_http(home: BuildEnvironment) -> None:
    """§4: scope `worker`; `in_progress` claims; only legal transitions; 409 after the end."""
    asked = await ask(home.api, home.project)
    client = await home.client()
    path = f"/v1/projects/{home.project}/builds/{asked.build_id}/status"

    async def report(**body: object) -> tuple[int, str]:
        response = await home.api.request("POST", path, body, scope="worker")
        return response.status_code, response.json().get("code", "")

    assert await report(status="completed") == (409, "ILLEGAL_TRANSITION")
    assert await report(status="in_progress", progress=10, step="one") == (202, "")
    assert await report(status="queued") == (409, "ILLEGAL_TRANSITION")
    assert await report(status="in_progress", progress=200) == (400, "VALIDATION_FAILED")
    assert await report(status="completed", message="fine", result={"a": 1}) == (202, "")
    assert await report(status="failed") == (409, "BUILD_ENDED")
    await client.wait_seq(2)
    assert changes(client.events(), asked.build_id) == UNDISTURBED


async def test_reporting_needs_the_scope_and_a_free_build(home: BuildEnvironment) -> None:
    """§3, §4: nobody without `worker` may; a build that another has is 409."""
    await home.worker(_SLOW)
    asked = await ask(home.api, home.project)
    await home.wait_status(asked.build_id, "in_progress")
    path = f"/v1/projects/{home.project}/builds/{asked.build_id}/status"
    held = await home.api.request("POST", path, {"status": "in_progress"}, scope="worker")
    assert (held.status_code, held.json()["code"]) == (409, "BUILD_HELD")
    async with httpx.AsyncClient(base_url=home.service.url, trust_env=False) as http:
        refused = await http.post(
            path, json={"status": "in_progress"},
            headers={"Authorization": f"Bearer {token('alice', scope='read write')}"},
        )  # fmt: skip
    signed = await home.api.request("POST", path, {"status": "in_progress"})
    for each in (refused, signed):
        assert (each.status_code, each.json()["code"]) == (403, "FORBIDDEN")


async def test_builds_that_are_not_there(home: BuildEnvironment) -> None:
    """§4: another project's build, and no build at all, are 404 alike."""
    await home.api.create_project("built-elsewhere")
    asked = await ask(home.api, home.project)
    for path in (
        f"/v1/projects/built-elsewhere/builds/{asked.build_id}",
        f"/v1/projects/{home.project}/builds/nonsense",
    ):
        assert (await home.api.request("GET", path)).status_code == 404
        assert (await home.api.request("POST", f"{path}/cancel")).status_code == 404


async def test_builds_are_listed_newest_first(home: BuildEnvironment) -> None:
    """§4: `GET …/builds?status=&limit=`."""
    made = [(await ask(home.api, home.project)).build_id for _ in range(3)]
    await home.api.request("POST", f"/v1/projects/{home.project}/builds/{made[0]}/cancel")

    async def listed(query: str) -> list[str]:
        response = await home.api.request("GET", f"/v1/projects/{home.project}/builds{query}")
        return [build["buildId"] for build in response.json()["builds"]]

    assert await listed("") == made[::-1]
    assert await listed("?limit=1") == [made[2]]
    assert await listed("?status=queued") == [made[2], made[1]]
    assert await listed("?status=failed") == [made[0]]


async def test_the_worker_of_the_documentation(home: BuildEnvironment, tmp_path: Path) -> None:
    """A worker written against the library alone."""
    client = await home.client()
    example = WorkerProcess(
        "example", tmp_path, home.environment, sys.executable, "docs/examples/worker.py"
    )
    async with example:
        asked = await ask(home.api, home.project)
        await client.wait_seq(2)
    assert changes(client.events(), asked.build_id) == UNDISTURBED


async def test_the_example_that_only_tells(home: BuildEnvironment, tmp_path: Path) -> None:
    """Library: `append_status` puts `build.status` entries into the stream, as workers do."""
    client = await home.client()
    await home.api.post(home.project, "hello")
    example = WorkerProcess(
        "telling", tmp_path, home.environment,
        sys.executable, "docs/examples/append_status.py", home.project, "alice",
    )  # fmt: skip
    async with example:
        await client.wait_until(lambda c: len(c.events("build.status")) == 4, timeout_s=10)
    assert [status.entry_id for status in statuses(client.events())] == [
        "1-1", "1-2", "1-3", "1-4",
    ]  # fmt: skip


async def test_a_status_that_was_never_published_still_comes(
    home: BuildEnvironment, builds_database: str, redis_server: RedisServer
) -> None:
    """A worker that dies between commit and publishing: both status and message come."""
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
    assert changes(client.events(), asked.build_id) == UNDISTURBED


async def test_builds_survive_redis(
    postgres: PostgresServer, database_url: str, tmp_path: Path
) -> None:
    """G7: without Redis statuses reach open streams; when it is back the window has them all."""
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
                assert changes(client.events(), asked.build_id) == UNDISTURBED
                own_redis.start()
                with redis.Redis.from_url(own_redis.url) as other:

                    def told() -> list[tuple[str, int]]:
                        found = []
                        for _, fields in other.xrange(keys.stream(home.project)):
                            data = msgspec.json.decode(fields[b"data"])
                            if fields[b"event"] == b"build.status":
                                found.append((data["status"], data["content"]["attempt"]))
                        return list(dict.fromkeys(found))

                    await wait_until(lambda: told() == UNDISTURBED, what="the window's statuses")
                    ids = [EntryId.parse(i) for i, _ in other.xrange(keys.stream(home.project))]
                    assert [entry.seq for entry in ids if entry.k == 0] == [1, 2, 3]
                assert applied(client.events(), asked.build_id) == ("completed", 1)


@pytest.mark.timeout(400, method="signal")  # a thousand processes on a starved machine
async def test_many_builds_over_four_workers(
    home: BuildEnvironment, builds_database: str, redis_server: RedisServer
) -> None:
    """Each runs once, and each has exactly one end message."""
    client = await home.client(from_seq=None)
    async with EventLog.open(builds_database, redis_server.url) as log:

        async def request(number: int) -> None:
            message = NewMessage(
                user_id="alice", text="b", mode="build", client_msg_id=f"b{number}"
            )
            while True:
                try:
                    await log.builds.ask(home.project, message)
                except Unavailable:
                    # On a busy machine a hundred at once wait too long for the project's row.
                    continue
                return

        for start in range(0, _MANY, 100):
            await asyncio.gather(*(request(n) for n in range(start, start + 100)))
        for _ in range(4):
            await home.worker(
                "true", SEQSTREAM_WORKER_CONCURRENCY="4", SEQSTREAM_BUILD_LEASE_SECONDS="30"
            )
        await client.wait_seq_steadily(2 * _MANY)
        builds = await log.builds.list(home.project, limit=2 * _MANY)
        told = ends(await home.api.log(home.project))
    assert {build.status for build in builds} == {"completed"}
    assert {build.attempt for build in builds} == {1}
    ended = [msgspec.json.decode(row.data)["metadata"]["build_id"] for row in told]
    assert len(ended) == _MANY
    assert set(ended) == {build.id for build in builds}

    def all_shown(client: SseClient) -> bool:
        shown = {status.content.build_id: status.status for status in statuses(client.events())}
        return len(shown) == _MANY and set(shown.values()) == {"completed"}

    await client.wait_until(all_shown, timeout_s=10)
