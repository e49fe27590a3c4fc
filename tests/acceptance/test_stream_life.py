"""docs/protocol.md §6: heartbeats, slow clients, limits, and reasons to end an open stream."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping

import httpx
import msgspec
import pytest

from tests.acceptance.conftest import NewProject, Project, Services
from tests.conftest import StartService
from tests.support.processes import ServiceProcess, service_environment
from tests.support.raw_stream import RawResponse, raw_connection, raw_request
from tests.support.signing import token
from tests.support.sse_client import SseClient
from tests.support.waiting import wait_until

STREAM = {"Accept": "text/event-stream"}


@pytest.fixture(scope="module")
async def small_limits(
    services: Services, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[ServiceProcess]:
    """A process with short intervals and small limits, on the shared servers."""
    settings: Mapping[str, str] = {
        "SEQSTREAM_HEARTBEAT_SECONDS": "0.3",
        "SEQSTREAM_SLOW_CLIENT_SECONDS": "1",
        "SEQSTREAM_MAX_STREAMS_PER_USER": "2",
        "SEQSTREAM_MAX_STREAMS_PER_PROJECT": "3",
    }
    environment = service_environment(services.database_url, services.redis.url, settings)
    async with ServiceProcess(
        "small_limits", tmp_path_factory.mktemp("small_limits"), environment
    ) as process:
        yield process


async def test_an_idle_stream_gets_heartbeats(
    small_limits: ServiceProcess, project: Project
) -> None:
    """§6: after each idle interval a `heartbeat` with `{headSeq, timestamp}` and no id."""
    await project.fill(2)
    async with raw_request(small_limits.port, project.stream()) as response:
        await wait_until(lambda: response.names.count("heartbeat") >= 2, what="two heartbeats")
        (block, *_) = [b for b in response.blocks if b.startswith(b"event: heartbeat")]
    assert block.split(b"\n")[1].startswith(b'data: {"headSeq":2,"timestamp":"')


async def test_a_client_that_reads_nothing_is_disconnected_and_delays_no_other(
    small_limits: ServiceProcess, new_project: NewProject
) -> None:
    """§6: other clients get all messages; the client is closed when it takes no byte in time."""
    project = await new_project(small_limits)
    async with (
        raw_connection(small_limits.port, receive_buffer_bytes=4096) as (reader, writer),
        SseClient("q", [small_limits.url], project.id, project.token) as client,
    ):
        await client.wait_live()
        target = project.stream("from_seq=0")
        writer.write(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await reader.readuntil(b"stream.live")
        total = 0
        for _ in range(8):
            total += 15
            body = {"messages": [{"message": "x" * 60_000}] * 15}
            response = await project.api.request("POST", f"{project.messages}/batch", body)
            assert response.status_code == 201
        await client.wait_seq(total)
        assert [int(e.event_id) for e in client.events("message.new")] == list(range(1, total + 1))

        async def closed() -> bool:
            return 'sse_closed_total{reason="slow_client"} 1.0' in await _metrics(small_limits)

        await wait_until(closed, timeout_s=15, what="the end of the slow client")


async def test_a_slow_client_catches_up_in_order(
    small_limits: ServiceProcess, new_project: NewProject
) -> None:
    """§6: a slow client falls back to the window and then the log, and catches up in order."""
    project = await new_project(small_limits)
    async with raw_connection(small_limits.port, receive_buffer_bytes=4096) as (reader, writer):
        writer.write(f"GET {project.stream()} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        response = RawResponse(reader, writer)
        await reader.readuntil(b"stream.live")
        await reader.readuntil(b"\n\n")
        # Far more than the socket buffers of both sides and the tail's memory hold.
        for _ in range(6):
            body = {"messages": [{"message": "x" * 60_000}] * 15}
            await project.api.request("POST", f"{project.messages}/batch", body)
        got = b""
        while b"id: 90\n" not in got:
            data = await asyncio.wait_for(reader.read(65_536), 10)
            assert data, "the stream ended"
            got += data
        await response.close()
    seqs = [int(line[4:]) for line in got.split(b"\n") if line.startswith(b"id: ")]
    assert seqs == list(range(1, 91))


async def _metrics(process: ServiceProcess) -> str:
    async with httpx.AsyncClient(trust_env=False, verify=False) as http:
        return (await http.get(f"{process.url}/metrics")).text


@contextlib.asynccontextmanager
async def _full(process: ServiceProcess, project: Project) -> AsyncIterator[None]:
    """Open as many streams as the user may have."""
    async with (
        raw_request(process.port, project.stream(), headers=STREAM) as one,
        raw_request(process.port, project.stream(), headers=STREAM) as two,
    ):
        await one.wait_for("stream.live")
        await two.wait_for("stream.live")
        yield


async def test_above_the_limit_an_event_source_is_refused_in_band(
    small_limits: ServiceProcess, project: Project
) -> None:
    """§6: a temporary refusal is a 200 stream of `stream.refused` with a `retry:`."""
    async with (
        _full(small_limits, project),
        raw_request(small_limits.port, project.stream(), headers=STREAM) as refused,
    ):
        await refused.wait_end()
        assert refused.status == 200
        assert refused.header("content-type") == "text/event-stream; charset=utf-8"
        assert refused.blocks[0].startswith(b"event: stream.refused\nretry: ")
        assert refused.names == ["stream.refused"]
        data = msgspec.json.decode(refused.blocks[0].split(b"data: ")[1].split(b"\n")[0])
        assert data["code"] == "RATE_LIMITED"
        assert data["retryAfterMs"] > 0


async def test_above_the_limit_a_client_other_than_event_source_gets_429(
    small_limits: ServiceProcess, project: Project
) -> None:
    """§6: 429 when the request does not accept `text/event-stream`."""
    async with (
        _full(small_limits, project),
        raw_request(small_limits.port, project.stream()) as refused,
    ):
        await refused.wait_end()
        assert refused.status == 429
        assert int(refused.header("retry-after") or 0) >= 1
        assert msgspec.json.decode(refused.body)["code"] == "RATE_LIMITED"


async def test_a_closed_stream_no_longer_counts_against_the_limit(
    small_limits: ServiceProcess, project: Project
) -> None:
    """§6: the limit counts open streams only."""
    async with _full(small_limits, project):
        pass

    async def free() -> bool:
        async with raw_request(small_limits.port, project.stream(), headers=STREAM) as response:
            await wait_until(lambda: bool(response.names), what="an event")
            return response.names[0] == "stream.open"

    await wait_until(free, what="an accepted stream")


async def test_the_limit_of_the_project_counts_all_its_users(
    small_limits: ServiceProcess, project: Project
) -> None:
    """§6: the limit is per project and process."""
    for user in ("second", "third"):
        await project.api.add_member(project.id, user)
    base = f"/v1/projects/{project.id}/chat/stream?token="
    async with (
        _full(small_limits, project),
        raw_request(small_limits.port, base + token("second"), headers=STREAM) as third,
        raw_request(small_limits.port, base + token("third"), headers=STREAM) as fourth,
    ):
        await third.wait_for("stream.open")
        await fourth.wait_for("stream.refused")


async def test_the_limit_of_the_process_counts_all_projects(
    start_service: StartService, new_project: NewProject
) -> None:
    """§6: above `SEQSTREAM_MAX_STREAMS` an EventSource is refused in-band, others get 429."""
    process = await start_service({"SEQSTREAM_MAX_STREAMS": "2"})
    first, second, third = [await new_project(process) for _ in range(3)]
    async with (
        raw_request(process.port, first.stream(), headers=STREAM) as one,
        raw_request(process.port, second.stream(), headers=STREAM) as two,
    ):
        await one.wait_for("stream.live")
        await two.wait_for("stream.live")
        async with raw_request(process.port, third.stream(), headers=STREAM) as refused:
            await refused.wait_end()
            assert (refused.status, refused.names) == (200, ["stream.refused"])
        async with raw_request(process.port, third.stream()) as refused:
            assert refused.status == 429
        # The limit applies to streams only.
        assert (await third.api.post(third.id, "x")).seq == 1


async def test_a_stream_ends_when_its_token_expires(services: Services, project: Project) -> None:
    """§3: an open stream ends within 5 s of the expiry, with the reason `token_expired`."""
    target = f"/v1/projects/{project.id}/chat/stream?token={token('owner', ttl_s=2)}"
    async with raw_request(services.a.port, target) as response:
        await response.wait_for("stream.live")
        await response.wait_end(timeout_s=7)
        assert response.blocks[-1].startswith(b"event: stream.closing\nretry: ")
        assert response.blocks[-1].endswith(b'\ndata: {"reason":"token_expired","reconnect":false}')


async def test_a_removed_members_streams_end_in_every_process(
    services: Services, project: Project
) -> None:
    """§3: an open stream ends within 5 s of its user's removal; other users' streams stay."""
    await project.api.add_member(project.id, "leaver")
    target = f"/v1/projects/{project.id}/chat/stream?token={token('leaver')}"
    async with (
        raw_request(services.a.port, target) as here,
        raw_request(services.b.port, target) as there,
        raw_request(services.b.port, project.stream()) as owners,
    ):
        for response in (here, there, owners):
            await response.wait_for("stream.live")
        path = f"/v1/projects/{project.id}/members/leaver"
        assert (await project.api.request("DELETE", path)).status_code == 204
        for response in (here, there):
            await response.wait_end(timeout_s=5)
            assert response.blocks[-1].startswith(b"event: stream.closing\nretry: ")
            assert response.blocks[-1].endswith(
                b'\ndata: {"reason":"access_revoked","reconnect":false}'
            )
        assert not owners.ended
        async with raw_request(services.b.port, target) as again:
            assert again.status == 403


async def test_a_removed_member_cannot_post_in_any_process(
    services: Services, project: Project
) -> None:
    """§3: posts are refused at once in the process that removed the member, soon in all others."""
    await project.api.add_member(project.id, "poster")
    headers = {"Authorization": f"Bearer {token('poster', scope='write')}"}
    async with (
        httpx.AsyncClient(trust_env=False, verify=False, headers=headers) as http,
        # Process b is informed of removals in projects of which it has open streams.
        raw_request(services.b.port, project.stream()) as owners,
    ):
        await owners.wait_for("stream.live")
        for process in (services.a, services.b):
            posted = await http.post(process.url + project.messages, json={"message": "x"})
            assert posted.status_code == 201
        path = f"/v1/projects/{project.id}/members/poster"
        assert (await project.api.request("DELETE", path)).status_code == 204
        posted = await http.post(services.a.url + project.messages, json={"message": "x"})
        assert posted.status_code == 403

        async def refused() -> bool:
            posted = await http.post(services.b.url + project.messages, json={"message": "x"})
            return posted.status_code == 403

        await wait_until(refused, timeout_s=8, what="the refusal")
