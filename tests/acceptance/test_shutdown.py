"""docs/protocol.md §6, shutdown."""

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
async def ending(
    services: Services, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[ServiceProcess]:
    """A process on the shared servers, to be ended."""
    environment = service_environment(services.database_url, services.redis.url)
    async with ServiceProcess("ending", tmp_path_factory.mktemp("ending"), environment) as process:
        yield process


async def test_on_sigterm_streams_say_goodbye_and_the_status_is_0(
    ending: ServiceProcess, new_project: NewProject
) -> None:
    """§6: `stream.closing` with a `retry:` spread over a few seconds; exit 0 within 10 s."""
    project = await new_project(ending)
    async with (
        raw_request(ending.port, project.stream()) as one,
        raw_request(ending.port, project.stream()) as two,
        raw_request(ending.port, project.stream()) as three,
    ):
        streams = (one, two, three)
        for stream in streams:
            await stream.wait_for("stream.live")
        ending.signal(signal.SIGTERM)
        assert await ending.wait_end(timeout_s=10) == 0
        delays = set()
        for stream in streams:
            await stream.wait_end()
            assert stream.blocks[-1] == (
                b'event: stream.closing\ndata: {"reason":"shutdown","reconnect":true}'
            )
            delays.add(int(stream.blocks[-2].removeprefix(b"retry: ")))
        assert len(delays) > 1
        assert max(delays) <= 5000


async def test_posts_under_way_are_answered(
    ending: ServiceProcess, services: Services, new_project: NewProject
) -> None:
    """§6: finishes what is being committed and published."""
    project = await new_project(ending)
    async with SseClient("p", [services.b.url], project.id, project.token) as client:
        await client.wait_live()
        posts = [
            asyncio.create_task(project.api.post(project.id, "x", f"c{number}"))
            for number in range(40)
        ]
        await wait_until(lambda: any(post.done() for post in posts), what="the first answer")
        ending.signal(signal.SIGTERM)
        results = await asyncio.gather(*posts, return_exceptions=True)
        assert await ending.wait_end(timeout_s=10) == 0
        answered = {each.seq for each in results if not isinstance(each, BaseException)}
        refused = [each for each in results if isinstance(each, BaseException)]
        # A connection that was not yet accepted may be refused; an accepted post is answered.
        assert all(isinstance(each, httpx.TransportError) for each in refused), refused
        async with Api(services.b.url, "owner") as other:
            head = (await other.history_page(project.id, limit=1)).head_seq
        assert answered == set(range(1, head + 1))
        await client.wait_seq(head)


async def test_with_a_stream_that_reads_nothing_it_still_ends_in_time(
    ending: ServiceProcess, new_project: NewProject
) -> None:
    """§6: exits 0 within 10 s, whatever the clients do."""
    project = await new_project(ending)
    async with SseClient(
        "s", [ending.url], project.id, project.token, from_seq=0, stall_after=1
    ) as client:
        await client.wait_live()
        for _ in range(6):
            body = {"messages": [{"message": "x" * 60_000}] * 15}
            await project.api.request("POST", f"{project.messages}/batch", body)
        ending.signal(signal.SIGTERM)
        assert await ending.wait_end(timeout_s=10) == 0


@pytest.mark.parametrize("path", ["chat/messages", "chat/typing"])
async def test_a_body_that_never_ends_does_not_hold_up_the_end(
    ending: ServiceProcess, new_project: NewProject, path: str
) -> None:
    """§6: exits 0 within 10 s; a client that was cut off in the middle of a post is let go of."""
    project = await new_project(ending)
    head = (
        f"POST /v1/projects/{project.id}/{path} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        f"Authorization: Bearer {token('owner', scope='write')}\r\n"
        "Content-Type: application/json\r\nContent-Length: 100\r\nExpect: 100-continue\r\n\r\n"
    )
    async with raw_connection(ending.port) as (reader, writer):
        writer.write(head.encode())
        # It is told to go on when somebody waits for the body.
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b'{"message": "')
        ending.signal(signal.SIGTERM)
        assert await ending.wait_end(timeout_s=10) == 0
        # Half of a request has no answer.
        assert await reader.read() == b""
    written = ending.log_path.read_text()
    assert "Traceback" not in written
    assert "graceful shutdown exceeded" not in written


async def test_a_postgres_that_hangs_does_not_hold_up_the_end(
    services: Services, new_project: NewProject, tmp_path: Path
) -> None:
    """§6: exits 0 within 10 s; a post whose outcome nobody knows gets no answer, or 503."""
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


async def test_answers_under_way_and_a_postgres_that_hangs_do_not_hold_up_the_end(
    services: Services, new_project: NewProject, tmp_path: Path
) -> None:
    """§6: exits 0 within 10 s, though nobody can write down how the answers ended."""
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


async def test_while_draining_a_stream_on_a_kept_connection_is_refused_in_band(
    ending: ServiceProcess, new_project: NewProject
) -> None:
    """§6: an EventSource that is refused by an HTTP error would never come back."""
    project = await new_project(ending)
    lines = [
        f"GET {project.stream()} HTTP/1.1",
        "Host: 127.0.0.1",
        "Accept: text/event-stream",
        # With a body, so that the test decides when the request is whole.
        "Content-Length: 2",
        "Expect: 100-continue",
    ]
    async with (
        raw_request(ending.port, project.stream()) as open_one,
        raw_connection(ending.port) as (reader, writer),
    ):
        await open_one.wait_for("stream.live")
        writer.write(b"GET /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        await reader.readexactly(length)
        writer.write("\r\n".join([*lines, "", ""]).encode())
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        ending.signal(signal.SIGTERM)
        await open_one.wait_for("stream.closing")
        writer.write(b"{}")
        response = RawResponse(reader, writer)
        await response.read_head()
        await response.wait_end()
        assert response.status == 200
        assert response.header("content-type") == "text/event-stream"
        assert response.names == ["stream.refused"]
        assert b'"code":"STORE_UNAVAILABLE"' in response.body
        assert await ending.wait_end(timeout_s=10) == 0


async def test_an_answer_that_nobody_reads_does_not_hold_up_the_end(
    ending: ServiceProcess, new_project: NewProject
) -> None:
    """§6: exits 0 within 10 s, whatever the clients do."""
    project = await new_project(ending)
    for _ in range(10):
        body = {"messages": [{"message": "x" * 60_000}] * 15}
        await project.api.request("POST", f"{project.messages}/batch", body)
    target = f"{project.messages}?after_seq=0&limit=150"
    headers = signed_headers("GET", target, "owner", b"")
    lines = [f"GET {target} HTTP/1.1", "Host: 127.0.0.1"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    async with raw_connection(ending.port, receive_buffer_bytes=4096) as (reader, writer):
        writer.write("\r\n".join([*lines, "", ""]).encode())
        assert await reader.readexactly(12) == b"HTTP/1.1 200"
        ending.signal(signal.SIGTERM)
        assert await ending.wait_end(timeout_s=10) == 0
    written = ending.log_path.read_text()
    assert "Traceback" not in written
    assert "graceful shutdown exceeded" not in written
