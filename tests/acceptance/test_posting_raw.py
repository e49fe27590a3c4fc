"""docs/protocol.md §4: a post gets the same response however its bytes are split and framed.

A body that arrives with its headers takes a shorter path through the service than a later one,
and the shortest path where posts have no limit (`service/routes/direct_append.py`). Clients must
see no difference.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import msgspec
import pytest

from tests.acceptance.conftest import Project, Services
from tests.support.raw_stream import RawResponse, raw_connection
from tests.support.signing import signed_headers

_SPLITS = {
    "whole": (),
    "after the headers": (-1,),
    "in the headers": (40,),
    "byte by byte": tuple(range(1, 60)),
}


@pytest.fixture
def services(each_post_path: Services) -> Services:
    """Run every test here on both code paths of a post."""
    return each_post_path


def _post(
    project: Project, text: str, more: Mapping[str, str] | None = None, *, chunked: bool = False
) -> bytes:
    """Return the bytes of a signed post."""
    body = msgspec.json.encode({"message": text, "client_msg_id": f"id-{text}"})
    headers = {
        "Host": "127.0.0.1",
        "Content-Type": "application/json",
        **signed_headers("POST", project.messages, "owner", body),
        **(more or {}),
    }
    if chunked:
        headers["Transfer-Encoding"] = "chunked"
        body = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
    else:
        headers["Content-Length"] = str(len(body))
    lines = [f"{name}: {value}" for name, value in headers.items()]
    head = "\r\n".join([f"POST {project.messages} HTTP/1.1", *lines, "", ""])
    return head.encode() + body


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> RawResponse:
    response = RawResponse(reader, writer)
    await response.read_head()
    await response.wait_end()
    return response


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("split", _SPLITS)
async def test_a_post_split_anywhere_gets_the_same_response(
    services: Services, project: Project, split: str, chunked: bool
) -> None:
    """Status, headers and body equal those for a post sent in one piece."""
    data = _post(project, "hello", {"X-Request-Id": "mine-1"}, chunked=chunked)
    head_end = data.index(b"\r\n\r\n") + 4
    offsets = [head_end if offset == -1 else offset for offset in _SPLITS[split]]
    async with raw_connection(services.a.port) as (reader, writer):
        for start, end in zip([0, *offsets], [*offsets, len(data)], strict=True):
            writer.write(data[start:end])
            await writer.drain()
        response = await _answer(reader, writer)
    assert response.status == 201
    assert {name.lower() for name, _ in response.headers} == {
        "content-type", "content-length", "date", "x-request-id",
        "x-content-type-options", "referrer-policy",
    }  # fmt: skip
    assert response.header("x-request-id") == "mine-1"
    assert response.header("content-type") == "application/json"
    body = msgspec.json.decode(response.body)
    assert (body["seq"], body["client_msg_id"], body["projectId"]) == (1, "id-hello", project.id)


async def test_pipelined_posts_are_answered_in_order(services: Services, project: Project) -> None:
    """HTTP/1.1 pipelining: a post starts after the response to the one before."""
    texts = [f"m{number}" for number in range(12)]
    async with raw_connection(services.a.port) as (reader, writer):
        writer.write(b"".join(_post(project, text) for text in texts))
        bodies = [msgspec.json.decode((await _answer(reader, writer)).body) for _ in texts]
    assert [(body["seq"], body["client_msg_id"]) for body in bodies] == [
        (number, f"id-{text}") for number, text in enumerate(texts, 1)
    ]


async def test_an_error_between_pipelined_posts_keeps_the_order(
    services: Services, project: Project
) -> None:
    """The connection stays usable."""
    good, bad = _post(project, "good"), _post(project, "bad").replace(b"v2=", b"v1=")
    async with raw_connection(services.a.port) as (reader, writer):
        writer.write(good + bad + good)
        answers = [await _answer(reader, writer) for _ in range(3)]
    assert [answer.status for answer in answers] == [201, 401, 200]
    assert len({answer.header("x-request-id") for answer in answers}) == 3


async def test_connection_close_closes_after_the_response(
    services: Services, project: Project
) -> None:
    """The response has `Connection: close` too."""
    async with raw_connection(services.a.port) as (reader, writer):
        writer.write(_post(project, "last", {"Connection": "close"}))
        response = await _answer(reader, writer)
        assert (response.status, response.header("connection")) == (201, "close")
        assert await reader.read() == b""


async def test_a_client_that_expects_100_continue_gets_it(
    services: Services, project: Project
) -> None:
    """`Expect: 100-continue`: the client sends the body after the interim response."""
    data = _post(project, "asked for", {"Expect": "100-continue"})
    head_end = data.index(b"\r\n\r\n") + 4
    async with raw_connection(services.a.port) as (reader, writer):
        writer.write(data[:head_end])
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(data[head_end:])
        assert (await _answer(reader, writer)).status == 201
