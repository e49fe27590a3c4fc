"""docs/protocol.md §4: `wait` on the history, for clients whose proxy buffers streams."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator

import httpx
import pytest

from tests.acceptance.conftest import NewProject, Project, Services
from tests.acceptance.error_form import checked_error
from tests.support.processes import ServiceProcess, service_environment
from tests.support.raw_stream import raw_connection
from tests.support.signing import signed_headers, token
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
async def polled(
    services: Services, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[ServiceProcess]:
    """A process in which a user may have one open stream in a project."""
    environment = service_environment(
        services.database_url, services.redis.url, {"SEQSTREAM_MAX_STREAMS_PER_USER": "1"}
    )
    folder = tmp_path_factory.mktemp("polled")
    async with ServiceProcess("polled", folder, environment) as process:
        yield process


async def _waits(process: ServiceProcess, count: int) -> None:
    """Wait until so many requests wait in the process."""

    async def holds() -> bool:
        async with httpx.AsyncClient(trust_env=False, verify=False) as http:
            text = (await http.get(f"{process.url}/metrics")).text
        return f"\nlong_polls {count}.0\n" in text

    await wait_until(holds, timeout_s=10, what=f"{count} waiting requests")


@contextlib.asynccontextmanager
async def _poll(
    process: ServiceProcess, project: Project, *, wait: int = 30, user: str = "owner"
) -> AsyncIterator[asyncio.Task[httpx.Response]]:
    """A request that waits for a message after the head; ended with the block."""
    head = (await project.api.history_page(project.id, limit=1)).head_seq
    url = f"{process.url}{project.messages}?after_seq={head}&wait={wait}"
    async with httpx.AsyncClient(trust_env=False, verify=False, timeout=40) as http:
        headers = {"Authorization": f"Bearer {token(user)}"}
        request = asyncio.create_task(http.get(url, headers=headers))
        try:
            await _waits(process, 1)
            yield request
        finally:
            request.cancel()
            await asyncio.gather(request, return_exceptions=True)
    await _waits(process, 0)


async def test_a_message_ends_the_wait(polled: ServiceProcess, project: Project) -> None:
    """§4: the answer has the message, though another process committed it."""
    await project.fill(2)
    async with _poll(polled, project) as request:
        await project.api.post(project.id, "news")
        page = (await request).json()
    assert [message["content"]["text"] for message in page["messages"]] == ["news"]
    assert (page["headSeq"], page["hasMore"], page["nextAfterSeq"]) == (3, False, 3)


async def test_without_a_message_the_page_is_empty_in_the_end(
    polled: ServiceProcess, project: Project
) -> None:
    """§4: the client asks again from `nextAfterSeq`."""
    await project.fill(2)
    async with _poll(polled, project, wait=1) as request:
        response = await request
    assert response.status_code == 200
    assert response.headers["cache-control"] == "private, no-cache"
    assert response.json() == {
        "messages": [], "headSeq": 2, "hasMore": False, "nextAfterSeq": 2,
    }  # fmt: skip


@pytest.mark.parametrize("after", [0, 7], ids=["something to say", "a cursor ahead of the log"])
async def test_there_may_be_nothing_to_wait_for(
    polled: ServiceProcess, project: Project, after: int
) -> None:
    """§4: messages are answered at once; so is a cursor that the log does not have."""
    await project.fill(3)
    path = f"{project.messages}?after_seq={after}&wait=30"
    async with httpx.AsyncClient(base_url=polled.url, trust_env=False, verify=False) as http:
        response = await http.get(path, headers=signed_headers("GET", path, "owner"), timeout=20)
    page = response.json()
    assert page["headSeq"] == 3
    assert len(page["messages"]) == max(0, 3 - after)


@pytest.mark.parametrize(
    "query",
    ["wait=5", "wait=5&after_seq=0&order=desc", "wait=5&after_seq=0&before_seq=9",
     "wait=0&after_seq=0", "wait=31&after_seq=0", "wait=x&after_seq=0"],
)  # fmt: skip
async def test_a_wait_that_makes_no_sense_is_refused(project: Project, query: str) -> None:
    """§4: the error names `wait`."""
    response = await project.api.request("GET", f"{project.messages}?{query}")
    error = checked_error(response, 400, "VALIDATION_FAILED")
    assert "'wait'" in repr(error)


async def test_a_request_that_waits_counts_as_an_open_stream(
    polled: ServiceProcess, project: Project
) -> None:
    """§6: the limit of a user in a project; a wait beyond it is 429."""
    path = f"{project.messages}?after_seq=0&wait=30"
    async with (
        _poll(polled, project),
        httpx.AsyncClient(base_url=polled.url, trust_env=False, verify=False) as http,
    ):
        refused = await http.get(path, headers=signed_headers("GET", path, "owner"))
        checked_error(refused, 429, "RATE_LIMITED")


async def test_a_client_that_goes_away_waits_no_longer(
    polled: ServiceProcess, project: Project
) -> None:
    """§6: its place is free again before its 30 s are over."""
    path = f"{project.messages}?after_seq=0&wait=30"
    async with raw_connection(polled.port) as (_, writer):
        lines = [f"GET {path} HTTP/1.1", "Host: 127.0.0.1"]
        lines += [f"{k}: {v}" for k, v in signed_headers("GET", path, "owner").items()]
        writer.write("\r\n".join([*lines, "", ""]).encode())
        await _waits(polled, 1)
    await _waits(polled, 0)


async def test_who_lost_access_during_the_wait_gets_no_message(
    polled: ServiceProcess, project: Project
) -> None:
    """G9: the caller is checked again before the answer."""
    await project.api.add_member(project.id, "leaver")
    async with _poll(polled, project, user="leaver") as request:
        path = f"/v1/projects/{project.id}/members/leaver"
        assert (await project.api.request("DELETE", path)).status_code == 204
        await wait_until(
            lambda: _is_refused(polled, project, "leaver"), timeout_s=5, what="the removal"
        )
        await project.api.post(project.id, "secret")
        response = await request
    checked_error(response, 403, "UNAUTHORIZED_PROJECT_ACCESS")


async def _is_refused(process: ServiceProcess, project: Project, user: str) -> bool:
    async with httpx.AsyncClient(trust_env=False, verify=False) as http:
        headers = {"Authorization": f"Bearer {token(user)}"}
        return (await http.get(process.url + project.messages, headers=headers)).status_code == 403


async def test_a_wait_ends_with_the_token(polled: ServiceProcess, project: Project) -> None:
    """G9: the answer comes when the token expires, so that nothing later is in it."""
    path = f"{project.messages}?after_seq=0&wait=30"
    async with httpx.AsyncClient(base_url=polled.url, trust_env=False, verify=False) as http:
        headers = {"Authorization": f"Bearer {token('owner', ttl_s=2)}"}
        response = await http.get(path, headers=headers, timeout=20)
    assert (response.status_code, response.json()["messages"]) == (200, [])


async def test_a_process_that_shuts_down_answers_at_once(
    services: Services,
    new_project: NewProject,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """§6: the exit does not wait for requests that wait."""
    environment = service_environment(services.database_url, services.redis.url)
    folder = tmp_path_factory.mktemp("stopping")
    async with ServiceProcess("stopping", folder, environment) as process:
        project = await new_project()
        head = (await project.api.history_page(project.id, limit=1)).head_seq
        path = f"{project.messages}?after_seq={head}&wait=30"
        async with httpx.AsyncClient(trust_env=False, verify=False, timeout=40) as http:
            headers = signed_headers("GET", path, "owner")
            request = asyncio.create_task(http.get(process.url + path, headers=headers))
            await _waits(process, 1)
            process.signal(signal.SIGTERM)
            assert (await request).json()["messages"] == []
        assert await process.wait_end(timeout_s=10) == 0
