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

# `make faults` sets SEQSTREAM_ALL_FAULTS; 1000 builds take half a minute on two cores.
_MANY = 1000 if os.environ.get("SEQSTREAM_ALL_FAULTS") else 200
UNDISTURBED = [("queued", 0), ("in_progress", 1), ("completed", 1)]
_SLOW = f"{sys.executable} -c 'import time; print(\"on it\", flush=True); time.sleep(60)'"


@pytest.fixture(scope="module")
def builds_database(postgres: PostgresServer, template_database: str) -> Iterator[str]:
    """URL of a database for this file; each test creates its own project in it."""
    yield postgres.create_database("builds", template=template_database)
    postgres.psql('DROP DATABASE "builds" WITH (FORCE)')


@pytest.fixture(scope="module")
async def service(
    builds_database: str, redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[ServiceProcess]:
    """One service for this file, with build leases of one second."""
    environment = service_environment(
        builds_database, redis_server.url, {"SEQSTREAM_BUILD_LEASE_SECONDS": "1"}
    )
    async with ServiceProcess("service", tmp_path_factory.mktemp("builds"), environment) as process:
        yield process


@pytest.fixture
async def home(
    service: ServiceProcess, builds_database: str, postgres: PostgresServer, tmp_path: Path
) -> AsyncIterator[BuildEnvironment]:
    """A project on this file's servers; all builds are deleted at the end of the test."""
    project = f"built-{next(_numbers)}"
    async with build_environment(service, project, tmp_path, service.environment) as made:
        yield made
    postgres.psql("DELETE FROM builds", database="builds")


async def test_a_build_is_queued_runs_and_ends_with_a_message(
    home: BuildEnvironment, redis_server: RedisServer
) -> None:
    """§8: the statuses are entries `n-k` without SSE id; the end message comes last."""
    await home.worker()
    client = await home.client()
    asked = await ask(home.api, home.project, "c1")
    await client.wait_seq(2)
    assert (asked.success, asked.queued, asked.status, asked.seq) == (True, True, "queued", 1)
    assert changes(client.events(), asked.build_id) == UNDISTURBED
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
    assert changes(client.events(), asked.build_id) == UNDISTURBED
    assert all(status.entry_id for status in statuses(client.events()))


async def test_a_repeated_request_returns_the_same_build(home: BuildEnvironment) -> None:
    """G5: the same `client_msg_id` returns the same build, also after the build has ended."""
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


async def test_unfinished_builds_are_limited_per_project_and_per_user(
    home: BuildEnvironment, tmp_path: Path
) -> None:
    """§6: above either limit a new build gets 429, and a repeated request its build."""
    limits = {"SEQSTREAM_MAX_BUILDS_PER_PROJECT": "2", "SEQSTREAM_MAX_BUILDS_PER_USER": "3"}
    other = f"{home.project}-other"
    # A build that another process accepted counts too.
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
        # An ended build no longer counts.
        path = f"/v1/projects/{home.project}/builds/{first.build_id}/cancel"
        assert (await api.request("POST", path)).status_code == 200
        await ask(api, home.project, "c3")


async def _is_refused(api: Api, project: str, whose: str) -> None:
    body = {"projectId": project, "message": "make it", "mode": "build", "client_msg_id": "more"}
    response = await api.request("POST", "/v1/chat/unified", body)
    assert (response.status_code, response.json()["code"]) == (429, "RATE_LIMITED")
    assert int(response.headers["Retry-After"]) > 0
    assert f"The {whose} has too many" in response.json()["error"]


async def test_another_worker_finishes_the_build_of_a_killed_worker(home: BuildEnvironment) -> None:
    """§8: after the lease another worker claims it as the next attempt; one end message."""
    first = await home.worker(_SLOW)
    client = await home.client()
    asked = await ask(home.api, home.project)
    await home.wait_status(asked.build_id, "in_progress")
    keeper, command = await children(first.pid, at_least=2)
    await first.kill()
    # The killed worker's command must not run at the same time as the next attempt.
    await wait_until(lambda: not any(map(is_alive, (keeper, command))), what="the end of the build")
    await home.worker()
    await client.wait_seq(2)
    assert changes(client.events(), asked.build_id) == [
        ("queued", 0), ("in_progress", 1), ("in_progress", 2), ("completed", 2),
    ]  # fmt: skip
    assert len(ends(await home.api.log(home.project))) == 1


async def test_a_build_fails_after_three_attempts(home: BuildEnvironment) -> None:
    """§8: the build fails, and its end message names the 3 attempts."""
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
async def test_an_opening_stream_sends_the_state_of_a_running_build(
    home: BuildEnvironment, from_seq: int | None
) -> None:
    """§6 step 3: it is sent once, before `stream.live`, with or without a cursor."""
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
    """Cancel: queued → failed with the message `cancelled`; a second cancel returns the same."""
    asked = await ask(home.api, home.project)
    path = f"/v1/projects/{home.project}/builds/{asked.build_id}/cancel"
    first, again = [await home.api.request("POST", path) for _ in range(2)]
    assert (first.status_code, first.json()["status"]) == (200, "failed")
    assert first.json()["message"] == "cancelled"
    assert (again.status_code, again.json()["status"]) == (200, "failed")
    assert len(ends(await home.api.log(home.project))) == 1


async def test_cancelling_a_running_build_kills_its_processes(home: BuildEnvironment) -> None:
    """Cancel: the worker kills the command and its whole process group."""
    script = "sleep 60 & sleep 60"
    worker = await home.worker(f'sh -c "{script}"')
    asked = await ask(home.api, home.project)
    await home.wait_status(asked.build_id, "in_progress")
    processes: list[int] = []

    async def all_run() -> bool:
        processes[:] = await children(worker.pid, at_least=0)
        return len(processes) == 4  # the keeper, sh, and two sleeps

    await wait_until(all_run, what="the command's processes")
    response = await home.api.request(
        "POST", f"/v1/projects/{home.project}/builds/{asked.build_id}/cancel"
    )
    assert (response.status_code, response.json()["cancelRequested"]) == (202, True)
    await home.wait_status(asked.build_id, "failed")
    await wait_until(lambda: not any(map(is_alive, processes)), what="the end of its processes")


async def test_a_stopped_worker_releases_its_build(home: BuildEnvironment) -> None:
    """SIGTERM: the worker releases the lease, so another worker takes over at once."""
    first = await home.worker(_SLOW, SEQSTREAM_BUILD_LEASE_SECONDS="3600")
    asked = await ask(home.api, home.project)
    await home.wait_status(asked.build_id, "in_progress")
    assert await first.terminate() == 0
    await home.worker()
    await home.wait_status(asked.build_id, "completed")


async def test_a_build_that_exceeds_its_timeout_fails(home: BuildEnvironment) -> None:
    """SEQSTREAM_BUILD_TIMEOUT_SECONDS: the command is killed and the build fails."""
    await home.worker(_SLOW, SEQSTREAM_BUILD_TIMEOUT_SECONDS="0.5")
    asked = await ask(home.api, home.project)
    await home.wait_status(asked.build_id, "failed")
    (end,) = ends(await home.api.log(home.project))
    assert b"timed out" in end.data


async def test_a_command_receives_the_request_and_returns_a_result(home: BuildEnvironment) -> None:
    """§8: request as JSON on standard input, ids in the environment; result in `response_data`."""
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


async def test_a_command_that_fails_fails_the_build(home: BuildEnvironment) -> None:
    """§8: any exit status but 0 is `failed`, with the last line of output."""
    await home.worker("sh -c 'echo no disk left; exit 3'")
    asked = await ask(home.api, home.project)
    await home.wait_status(asked.build_id, "failed")
    (end,) = ends(await home.api.log(home.project))
    assert b"ended with status 3: no disk left" in end.data


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
    assert changes(client.events(), asked.build_id) == UNDISTURBED
    assert len(shown) < 20
    assert (shown[-1].content.progress, shown[-1].content.step) == (100.0, "s9999")
    with redis.Redis.from_url(redis_server.url) as other:
        ids = [entry_id for entry_id, _ in other.xrange(keys.stream(home.project))]
    assert sum(entry_id.endswith(b"-0") for entry_id in ids) == 200


async def test_an_external_worker_reports_over_http(home: BuildEnvironment) -> None:
    """§4: `in_progress` claims the build; illegal transitions and later reports are 409."""
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


async def test_reporting_needs_the_worker_scope_and_an_unclaimed_build(
    home: BuildEnvironment,
) -> None:
    """§3, §4: without scope `worker` 403; a build that another worker claimed 409."""
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


async def test_missing_builds_are_404(home: BuildEnvironment) -> None:
    """§4: a build of another project and an unknown id are both 404."""
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


async def test_the_documented_worker_example_completes_a_build(
    home: BuildEnvironment, tmp_path: Path
) -> None:
    """`docs/examples/worker.py` uses only the public library."""
    client = await home.client()
    example = WorkerProcess(
        "example", tmp_path, home.environment, sys.executable, "docs/examples/worker.py"
    )
    async with example:
        asked = await ask(home.api, home.project)
        await client.wait_seq(2)
    assert changes(client.events(), asked.build_id) == UNDISTURBED


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
    """As when a worker dies between commit and publish: status and message are both delivered."""
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
                assert changes(client.events(), asked.build_id) == UNDISTURBED
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
                        lambda: published() == UNDISTURBED, what="the window's statuses"
                    )
                    ids = [EntryId.parse(i) for i, _ in other.xrange(keys.stream(home.project))]
                    assert [entry.seq for entry in ids if entry.k == 0] == [1, 2, 3]
                assert applied(client.events(), asked.build_id) == ("completed", 1)


@pytest.mark.timeout(400, method="signal")  # 1000 processes on a slow machine
async def test_four_workers_run_each_of_many_builds_once(
    home: BuildEnvironment, builds_database: str, redis_server: RedisServer
) -> None:
    """Each build runs once and has exactly one end message."""
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
            requests = [
                log.builds.ask(
                    home.project, NewMessage(user_id="alice", text=f"b{n}", mode="build")
                )
                for n in range(start, start + 100)
            ]
            await asyncio.gather(*requests)
        for _ in range(4):
            await home.worker(
                "true", SEQSTREAM_WORKER_CONCURRENCY="4", SEQSTREAM_BUILD_LEASE_SECONDS="30"
            )
        await client.wait_seq_steadily(2 * _MANY)
        builds = await log.builds.list(home.project, limit=2 * _MANY)
        end_messages = ends(await home.api.log(home.project))
    assert {build.status for build in builds} == {"completed"}
    assert {build.attempt for build in builds} == {1}
    ended = [msgspec.json.decode(row.data)["metadata"]["build_id"] for row in end_messages]
    assert len(ended) == _MANY
    assert set(ended) == {build.id for build in builds}

    def all_shown(client: SseClient) -> bool:
        shown = {status.content.build_id: status.status for status in statuses(client.events())}
        return len(shown) == _MANY and set(shown.values()) == {"completed"}

    await client.wait_until(all_shown, timeout_s=10)
