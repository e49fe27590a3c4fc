"""docs/protocol.md §4 against hostile and slow clients: real sockets, real proxies."""

from __future__ import annotations

import asyncio
import re
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import msgspec
import pytest

from tests.acceptance.conftest import Project, Services
from tests.conftest import StartService
from tests.support import nginx
from tests.support.api import Api
from tests.support.raw_stream import RawResponse, raw_connection
from tests.support.signing import signed_headers, token
from tests.support.waiting import wait_until

_HIDDEN = b"GET /demo HTTP/1.1\r\nHost: x\r\n\r\n"
_UPGRADE = (
    b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h\r\n"
    b"Content-Length: %d\r\n\r\n" % len(_HIDDEN)
) + _HIDDEN


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> RawResponse:
    response = RawResponse(reader, writer)
    await response.read_head()
    await response.wait_end()
    return response


async def test_a_body_after_an_upgrade_request_is_not_parsed_as_a_request(
    services: Services,
) -> None:
    """§4: the only response is 400, and the connection closes."""
    async with raw_connection(services.a.port) as (reader, writer):
        writer.write(_UPGRADE)
        got = await reader.read()
    assert re.findall(rb"HTTP/1.1 (\d+)", got) == [b"400"]
    assert b"<html" not in got.lower()


@pytest.mark.skipif(nginx.PATH is None, reason="nginx is not installed")
async def test_behind_a_proxy_no_client_gets_the_response_to_anothers_body(
    services: Services, tmp_path: Path
) -> None:
    """§4: with a proxy that forwards `Upgrade`, each response still goes to its own request."""
    async with nginx.nginx_in_front_of(services.a.port, tmp_path) as port:
        url = f"http://127.0.0.1:{port}/health/live"
        async with httpx.AsyncClient(trust_env=False) as other:
            for _ in range(10):
                async with raw_connection(port) as (reader, writer):
                    writer.write(_UPGRADE)
                    refused = await _answer(reader, writer)
                    answers = [await other.get(url) for _ in range(3)]
                assert refused.status == 400
                assert [answer.status_code for answer in answers] == [200] * 3
                assert all(answer.json()["status"] == "healthy" for answer in answers)


@pytest.mark.parametrize(
    "path",
    [
        "/%6Detrics", "//metrics", "/metrics/..", "/health//live", "/v1%2Fprojects",
        "/v1/projects/{id}/chat/%6Dessages", "/v1/projects//{id}/chat/messages",
        "/v1/projects/{id}%2fchat/messages", "/v1/projects/./{id}/chat/messages",
        "/v1/projects/{id}/chat/%73tream", "//v1/projects/{id}/chat/stream",
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
async def test_a_path_that_is_not_canonical_is_404(
    services: Services, project: Project, method: str, path: str
) -> None:
    """§4: otherwise another spelling of a path could bypass a proxy's rule for that path."""
    path = path.replace("{id}", project.id)
    body = b"" if method != "POST" else b'{"message":"x"}'
    headers = signed_headers(method, path, "owner", body)
    lines = [f"{method} {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}"]
    lines += ["Content-Type: application/json"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    async with raw_connection(services.a.port) as (reader, writer):
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        answer = await _answer(reader, writer)
    assert answer.status == 404
    assert msgspec.json.decode(answer.body)["code"] == "NOT_FOUND"


async def test_a_member_id_may_be_percent_encoded_in_the_path(project: Project) -> None:
    """§3: every user id has a path; UTF-8 and reserved characters are percent-encoded."""
    for user in ("a%3Ab", "%C3%A9t%C3%A9", "50%25", "a@b"):
        path = f"/v1/projects/{project.id}/members/{user}"
        assert (await project.api.request("PUT", path)).status_code == 204


_UNAUTHENTICATED = {
    "no credentials": "",
    "bad token": "Authorization: Bearer nonsense\r\n",
    "expired token": f"Authorization: Bearer {token('owner', ttl_s=-10, scope='write')}\r\n",
    "old signature": "".join(
        f"{name}: {value}\r\n"
        for name, value in signed_headers("POST", "/", "owner", timestamp_s=1).items()
    ),
    "no user": "X-Seqstream-User: \r\nX-Seqstream-Timestamp: 1\r\nX-Seqstream-Signature: x\r\n",
}


@pytest.mark.parametrize("credentials", _UNAUTHENTICATED.values(), ids=_UNAUTHENTICATED)
@pytest.mark.parametrize("path", ["chat/messages", "chat/messages/batch", "chat/typing"])
async def test_the_body_of_an_unauthenticated_request_is_not_read(
    services: Services, project: Project, path: str, credentials: str
) -> None:
    """§3: the service sends 401 instead of `100 Continue` and closes the connection."""
    async with raw_connection(services.a.port) as (reader, writer):
        writer.write(
            f"POST /v1/projects/{project.id}/{path} HTTP/1.1\r\nHost: x\r\n{credentials}"
            "Content-Type: application/json\r\nContent-Length: 1000\r\n"
            "Expect: 100-continue\r\n\r\n".encode()
        )
        answer = await _answer(reader, writer)
        assert (answer.status, answer.header("connection")) == (401, "close")
        assert await reader.read() == b""


async def test_malformed_requests_are_counted_and_rarely_logged(
    start_service: StartService,
) -> None:
    """§9: `http_malformed_total` counts all; the log gets at most one line per ten seconds."""
    service = await start_service()
    sent = 200
    for _ in range(sent):
        async with raw_connection(service.port) as (reader, writer):
            writer.write(b"nonsense\r\n\r\n")
            assert (await _answer(reader, writer)).status == 400
    async with httpx.AsyncClient(base_url=service.url, trust_env=False) as http:
        metrics = (await http.get("/metrics")).text
    assert f"\nhttp_malformed_total {sent}.0\n" in metrics
    assert await service.terminate() == 0
    assert service.log_path.read_text().count("alformed") <= 3
    assert "nvalid HTTP" not in service.log_path.read_text()


_READS = 3


async def test_unread_responses_to_a_user_are_limited(
    start_service: StartService,
) -> None:
    """§6, limits: only a user with too many unread responses gets 429, until one has been read."""
    service = await start_service({"SEQSTREAM_MAX_READS_PER_USER": str(_READS)})
    target = "/v1/projects/p/chat/messages?limit=500"
    async with Api(service.url, "u") as api, Api(service.url, "v") as other:
        await api.create_project("p")
        await api.request("PUT", "/v1/projects/p/members/v")
        for _ in range(10):
            body = {"messages": [{"message": "x" * 60_000}] * 15}
            assert (
                await api.request("POST", "/v1/projects/p/chat/messages/batch", body)
            ).status_code == 201
        lines = [f"GET {target} HTTP/1.1", "Host: x"]
        lines += [f"{n}: {v}" for n, v in signed_headers("GET", target, "u").items()]
        data = "\r\n".join([*lines, "", ""]).encode()
        async with AsyncExitStack() as stack:
            readers = []
            for _ in range(_READS):
                reader, writer = await stack.enter_async_context(
                    raw_connection(service.port, receive_buffer_bytes=4096, segment_bytes=536)
                )
                writer.write(data)
                assert await reader.readexactly(12) == b"HTTP/1.1 200"
                readers.append(reader)
            refused = await api.request("GET", "/v1/projects/p")
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
            assert refused.json()["code"] == "RATE_LIMITED"
            assert (await other.request("GET", "/v1/projects/p")).status_code == 200
            assert (await api.post("p", "posts are no reads")).seq == 151

            async def drain() -> None:
                while await readers[0].read(65_536):
                    pass

            reading = asyncio.create_task(drain())
            await wait_until(
                lambda: _served(api), what="a read after a response was received", timeout_s=20
            )
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
        await wait_until(lambda: _served(api), what="a read after the other connections closed")


async def _served(api: Api) -> bool:
    return (await api.request("GET", "/v1/projects/p")).status_code == 200
