"""docs/protocol.md §8: real workers, their attempts and commands, and reports over HTTP."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import httpx
import msgspec
import pytest

from service.operate.embedded import RedisServer
from streams import EventLog, NewMessage
from streams.model.errors import Unavailable
from tests.acceptance.builds.conftest import ONE_ATTEMPT, SLOW_COMMAND
from tests.support.build_environment import BuildEnvironment, ask, children, ends, is_alive
from tests.support.build_events import changes, statuses
from tests.support.signing import token
from tests.support.sse_client import SseClient
from tests.support.waiting import wait_until
from tests.support.workers import WorkerProcess

# `make faults` sets SEQSTREAM_ALL_FAULTS; 1000 builds take half a minute on two cores.
_MANY = 1000 if os.environ.get("SEQSTREAM_ALL_FAULTS") else 200


async def test_another_worker_finishes_the_build_of_a_killed_worker(home: BuildEnvironment) -> None:
    """§8: after the lease another worker claims it as the next attempt; one end message."""
    first = await home.worker(SLOW_COMMAND)
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
        worker = await home.worker(SLOW_COMMAND)

        async def started(attempt: int = attempt) -> bool:
            path = f"/v1/projects/{home.project}/builds/{asked.build_id}"
            build = (await home.api.request("GET", path)).json()
            return (build["status"], build["attempt"]) == ("in_progress", attempt)

        await wait_until(started, what=f"attempt {attempt}")
        await worker.kill()
    await home.worker()
    await home.wait_status(asked.build_id, "failed")
    (end,) = ends(await home.api.log(home.project))
    assert b'"type":"build_failed"' in end.data
    assert b"given up after 3 attempts" in end.data


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
    first = await home.worker(SLOW_COMMAND, SEQSTREAM_BUILD_LEASE_SECONDS="3600")
    asked = await ask(home.api, home.project)
    await home.wait_status(asked.build_id, "in_progress")
    assert await first.terminate() == 0
    await home.worker()
    await home.wait_status(asked.build_id, "completed")


async def test_a_build_that_exceeds_its_timeout_fails(home: BuildEnvironment) -> None:
    """SEQSTREAM_BUILD_TIMEOUT_SECONDS: the command is killed and the build fails."""
    await home.worker(SLOW_COMMAND, SEQSTREAM_BUILD_TIMEOUT_SECONDS="0.5")
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
    assert changes(client.events(), asked.build_id) == ONE_ATTEMPT


async def test_reporting_needs_the_worker_scope_and_an_unclaimed_build(
    home: BuildEnvironment,
) -> None:
    """§3, §4: without scope `worker` it is 403; if another worker has claimed the build, 409."""
    await home.worker(SLOW_COMMAND)
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


async def test_the_documented_worker_example_completes_a_build(
    home: BuildEnvironment, tmp_path: Path
) -> None:
    """`docs/examples/worker.py` is a worker that uses only the public library."""
    client = await home.client()
    example = WorkerProcess(
        "example", tmp_path, home.environment, sys.executable, "docs/examples/worker.py"
    )
    async with example:
        asked = await ask(home.api, home.project)
        await client.wait_seq(2)
    assert changes(client.events(), asked.build_id) == ONE_ATTEMPT


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
            await asyncio.gather(*(request(n) for n in range(start, start + 100)))
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
