"""docs/protocol.md §6, shutdown: on SIGTERM a process exits with 0 within 10 s."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.acceptance.conftest import NewProject, Services
from tests.support.api import Api
from tests.support.completions_server import DONE, CompletionsServer, chunk
from tests.support.processes import ServiceProcess, service_environment
from tests.support.raw_stream import RawResponse, raw_connection, raw_request
from tests.support.signing import signed_headers, token
from tests.support.sse_client import SseClient
from tests.support.tcp_proxy import TcpProxy
from tests.support.waiting import wait_until


@pytest.fixture
async def stopping(
    services: Services, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[ServiceProcess]:
    """A process on the shared servers, which the test stops."""
    environment = service_environment(services.database_url, services.redis.url)
    async with ServiceProcess(
        "stopping", tmp_path_factory.mktemp("stopping"), environment
    ) as process:
        yield process


async def test_on_sigterm_streams_get_a_closing_event_and_the_exit_status_is_0(
    stopping: ServiceProcess, new_project: NewProject
) -> None:
    """§6: `stream.closing` with `retry:` values spread over a few seconds."""
    project = await new_project(stopping)
    async with (
        raw_request(stopping.port, project.stream()) as one,
        raw_request(stopping.port, project.stream()) as two,
        raw_request(stopping.port, project.stream()) as three,
    ):
        streams = (one, two, three)
        for stream in streams:
            await stream.wait_for("stream.live")
        stopping.signal(signal.SIGTERM)
        assert await stopping.wait_end(timeout_s=10) == 0
        delays = set()
        for stream in streams:
            await stream.wait_end()
            event, retry, data = stream.blocks[-1].split(b"\n")
            assert event == b"event: stream.closing"
            assert data == b'data: {"reason":"shutdown","reconnect":true}'
            delays.add(int(retry.removeprefix(b"retry: ")))
        assert len(delays) > 1
        assert max(delays) <= 5000


async def test_posts_in_progress_are_answered(
    stopping: ServiceProcess, services: Services, new_project: NewProject
) -> None:
    """§6: the process finishes all commits and publishes that it has begun."""
    project = await new_project(stopping)
    async with SseClient("p", [services.b.url], project.id, project.token) as client:
        await client.wait_live()
        posts = [
            asyncio.create_task(project.api.post(project.id, "x", f"c{number}"))
            for number in range(40)
        ]
        await wait_until(lambda: any(post.done() for post in posts), what="the first answer")
        stopping.signal(signal.SIGTERM)
        results = await asyncio.gather(*posts, return_exceptions=True)
        assert await stopping.wait_end(timeout_s=10) == 0
        answered = {each.seq for each in results if not isinstance(each, BaseException)}
        refused = [each for each in results if isinstance(each, BaseException)]
        # A connection that was not yet accepted may be refused; an accepted post is answered.
        assert all(isinstance(each, httpx.TransportError) for each in refused), refused
        async with Api(services.b.url, "owner") as other:
            head = (await other.history_page(project.id, limit=1)).head_seq
        assert answered == set(range(1, head + 1))
        await client.wait_seq(head)


async def test_a_client_that_does_not_read_does_not_delay_the_exit(
    stopping: ServiceProcess, new_project: NewProject
) -> None:
    """§6: the process exits in time with an open stream whose client stopped reading."""
    project = await new_project(stopping)
    async with SseClient(
        "s", [stopping.url], project.id, project.token, from_seq=0, stall_after=1
    ) as client:
        await client.wait_live()
        for _ in range(6):
            body = {"messages": [{"message": "x" * 60_000}] * 15}
            await project.api.request("POST", f"{project.messages}/batch", body)
        stopping.signal(signal.SIGTERM)
        assert await stopping.wait_end(timeout_s=10) == 0


@pytest.mark.parametrize("path", ["chat/messages", "chat/typing"])
async def test_an_unfinished_request_body_does_not_delay_the_exit(
    stopping: ServiceProcess, new_project: NewProject, path: str
) -> None:
    """§6: the process closes the connection of a client that stopped in the middle of a post."""
    project = await new_project(stopping)
    head = (
        f"POST /v1/projects/{project.id}/{path} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        f"Authorization: Bearer {token('owner', scope='write')}\r\n"
        "Content-Type: application/json\r\nContent-Length: 100\r\nExpect: 100-continue\r\n\r\n"
    )
    async with raw_connection(stopping.port) as (reader, writer):
        writer.write(head.encode())
        # The interim response shows that the service waits for the body.
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b'{"message": "')
        stopping.signal(signal.SIGTERM)
        assert await stopping.wait_end(timeout_s=10) == 0
        # A partial request gets no response.
        assert await reader.read() == b""
    written = stopping.log_path.read_text()
    assert "Traceback" not in written
    assert "graceful shutdown exceeded" not in written


async def test_a_hanging_postgres_does_not_delay_the_exit(
    services: Services, new_project: NewProject, tmp_path: Path
) -> None:
    """§6: a post whose outcome is unknown gets no response, or 503."""
    port = urlsplit(services.database_url).port
    assert port is not None
    async with TcpProxy(port) as proxy:
        url = services.database_url.replace(f":{port}/", f":{proxy.port}/")
        environment = service_environment(url, services.redis.url)
        async with ServiceProcess("hung", tmp_path, environment) as process:
            project = await new_project(process)
            assert (await project.api.post(project.id, "x", "c1")).seq == 1
            proxy.stall()
            post = asyncio.create_task(project.api.post(project.id, "x", "c2"))
            await wait_until(lambda: process.client_connections() > 0, what="the post")
            process.signal(signal.SIGTERM)
            assert await process.wait_end(timeout_s=10) == 0
            with pytest.raises((httpx.TransportError, httpx.HTTPStatusError)):
                await post
            written = process.log_path.read_text()
            assert "Traceback" not in written
            assert "graceful shutdown exceeded" not in written


async def test_running_answers_and_a_hanging_postgres_do_not_delay_the_exit(
    services: Services, new_project: NewProject, tmp_path: Path
) -> None:
    """§6: the process exits in time though the end of the answers cannot be committed."""
    port = urlsplit(services.database_url).port
    assert port is not None
    async with CompletionsServer() as endpoint, TcpProxy(port) as proxy:
        endpoint.answer_with([chunk("a"), chunk("b"), DONE], pause_before=1)
        settings = {"SEQSTREAM_ASSISTANT_URL": endpoint.url, "SEQSTREAM_ASSISTANT_MODEL": "m"}
        url = services.database_url.replace(f":{port}/", f":{proxy.port}/")
        environment = service_environment(url, services.redis.url, settings)
        async with ServiceProcess("hung", tmp_path, environment) as process:
            project = await new_project(process)
            async with SseClient("p", [process.url], project.id, project.token) as client:
                await client.wait_live()
                body = {"projectId": project.id, "message": "x", "mode": "plan", "stream": True}
                for _ in range(3):
                    response = await project.api.request("POST", "/v1/chat/unified", body)
                    assert response.status_code == 201
                await wait_until(lambda: bool(client.events("message.delta")), what="a piece")
                proxy.stall()
                post = asyncio.create_task(project.api.post(project.id, "x", "c2"))
                process.signal(signal.SIGTERM)
                assert await process.wait_end(timeout_s=10) == 0
                with pytest.raises((httpx.TransportError, httpx.HTTPStatusError)):
                    await post
            assert "Traceback" not in process.log_path.read_text()


async def test_during_shutdown_a_stream_on_a_keep_alive_connection_is_refused_in_band(
    stopping: ServiceProcess, new_project: NewProject
) -> None:
    """§6: an EventSource that gets an HTTP error would never reconnect."""
    project = await new_project(stopping)
    lines = [
        f"GET {project.stream()} HTTP/1.1",
        "Host: 127.0.0.1",
        "Accept: text/event-stream",
        # With a body, so that the test decides when the request is complete.
        "Content-Length: 2",
        "Expect: 100-continue",
    ]
    async with (
        raw_request(stopping.port, project.stream()) as open_one,
        raw_connection(stopping.port) as (reader, writer),
    ):
        await open_one.wait_for("stream.live")
        writer.write(b"GET /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        await reader.readexactly(length)
        writer.write("\r\n".join([*lines, "", ""]).encode())
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        stopping.signal(signal.SIGTERM)
        await open_one.wait_for("stream.closing")
        writer.write(b"{}")
        response = RawResponse(reader, writer)
        await response.read_head()
        await response.wait_end()
        assert response.status == 200
        assert response.header("content-type") == "text/event-stream; charset=utf-8"
        assert response.names == ["stream.refused"]
        assert b'"code":"STORE_UNAVAILABLE"' in response.body
        assert await stopping.wait_end(timeout_s=10) == 0


async def test_a_response_that_is_not_read_does_not_delay_the_exit(
    stopping: ServiceProcess, new_project: NewProject
) -> None:
    """§6: the process exits in time with an unread history page in the socket."""
    project = await new_project(stopping)
    for _ in range(10):
        body = {"messages": [{"message": "x" * 60_000}] * 15}
        await project.api.request("POST", f"{project.messages}/batch", body)
    target = f"{project.messages}?after_seq=0&limit=150"
    headers = signed_headers("GET", target, "owner", b"")
    lines = [f"GET {target} HTTP/1.1", "Host: 127.0.0.1"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    async with raw_connection(stopping.port, receive_buffer_bytes=4096) as (reader, writer):
        writer.write("\r\n".join([*lines, "", ""]).encode())
        assert await reader.readexactly(12) == b"HTTP/1.1 200"
        stopping.signal(signal.SIGTERM)
        assert await stopping.wait_end(timeout_s=10) == 0
    written = stopping.log_path.read_text()
    assert "Traceback" not in written
    assert "graceful shutdown exceeded" not in written
