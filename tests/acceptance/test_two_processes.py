"""docs/protocol.md §2: many writers, two processes, and a crash between commit and publish."""

from __future__ import annotations

import contextlib

import httpx
import pytest

from tests.acceptance.conftest import NewProject, Project, Services
from tests.support.checker import check
from tests.support.processes import ServiceProcess, service_environment
from tests.support.signing import signed_headers
from tests.support.sse_client import SseClient
from tests.support.waiting import wait_until
from tests.support.writer import Writer

WRITERS = 8
EACH = 25


async def test_eight_writers_in_two_processes_leave_one_order(
    services: Services, project: Project
) -> None:
    """G1, G3: seqs 1..n without gap or repeat on every stream of both processes."""
    urls = [services.a.url, services.b.url]
    async with contextlib.AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(
                SseClient(f"c{number}", [urls[number % 2]], project.id, project.token)
            )
            for number in range(4)
        ]
        for client in clients:
            await client.wait_live()
        writers = [
            await stack.enter_async_context(
                Writer(f"w{n}", urls, project.id, "owner", posts_per_s=400, seed=n, first_url=n)
            )
            for n in range(WRITERS)
        ]
        await wait_until(
            lambda: all(len(writer.acknowledgements) >= EACH for writer in writers),
            timeout_s=30, what="the posts",
        )  # fmt: skip
        for writer in writers:
            await writer.finish()
        head = (await project.api.history_page(project.id, limit=1)).head_seq
        for client in clients:
            await client.wait_seq(head)
    report = check(
        posts=[post for writer in writers for post in writer.posts],
        acknowledgements=[ack for writer in writers for ack in writer.acknowledgements],
        clients=[client.history() for client in clients],
        log=await project.api.log(project.id),
    )
    assert report.ok, str(report)
    assert report.delivered == 4 * head
    for client in clients:
        seqs = [int(event.event_id) for event in client.events("message.new")]
        assert seqs == list(range(1, head + 1))


@pytest.fixture
async def crashing(services: Services, tmp_path_factory: pytest.TempPathFactory) -> ServiceProcess:
    """A process that kills itself with SIGKILL between its first commit and its publish."""
    environment = service_environment(
        services.database_url, services.redis.url, {"SEQSTREAM_FAULT": "kill-before-publish:1"}
    )
    return ServiceProcess("crashing", tmp_path_factory.mktemp("crashing"), environment)


async def test_a_commit_of_a_crashed_process_reaches_streams_of_another(
    services: Services, crashing: ServiceProcess, new_project: NewProject
) -> None:
    """G2: the heads poll of a process that reads the project delivers it within 1.5 s."""
    project = await new_project(services.a)
    await project.fill(2)
    async with crashing, SseClient("d", [services.b.url], project.id, project.token) as client:
        await client.wait_seq(2)
        body = b'{"message":"last words","client_msg_id":"last"}'
        headers = signed_headers("POST", project.messages, "owner", body)
        async with httpx.AsyncClient(trust_env=False, verify=False) as http:
            with pytest.raises(httpx.TransportError):
                await http.post(
                    crashing.url + project.messages, content=body,
                    headers={**headers, "Content-Type": "application/json"},
                )  # fmt: skip
        assert await crashing.wait_end() == -9
        await client.wait_seq(3, timeout_s=1.5)
        assert client.reconnects == 0
    # The client's retry gets the seq of the post that was not answered.
    again = await project.api.post(project.id, "last words", "last")
    assert (again.seq, again.duplicate) == (3, True)


async def test_a_commit_of_a_crashed_process_reaches_a_stream_opened_later(
    services: Services, crashing: ServiceProcess, new_project: NewProject
) -> None:
    """G2: the next process that reads the project delivers the unpublished message."""
    project = await new_project(services.a)
    async with crashing:
        body = b'{"message":"last words"}'
        headers = signed_headers("POST", project.messages, "owner", body)
        async with httpx.AsyncClient(trust_env=False, verify=False) as http:
            with pytest.raises(httpx.TransportError):
                await http.post(
                    crashing.url + project.messages, content=body,
                    headers={**headers, "Content-Type": "application/json"},
                )  # fmt: skip
    async with SseClient("l", [services.a.url], project.id, project.token) as client:
        await client.wait_seq(1)
