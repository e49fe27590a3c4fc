"""docs/protocol.md §4 byte by byte: a post is answered alike however it is cut, framed and sent.

A body that is here with its headers goes a shorter way through the service than one that is not,
and the shortest where posts have no limit (`service/routes/direct_append.py`); nobody may see a
difference.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import msgspec
import pytest

from tests.acceptance.conftest import Project, Services
from tests.support.raw_stream import RawResponse, raw_connection
from tests.support.signing import signed_headers

_CUTS = {
    "whole": (),
    "after the headers": (-1,),
    "in the headers": (40,),
    "byte by byte": tuple(range(1, 60)),
}


@pytest.fixture
def services(each_post_path: Services) -> Services:
    """Every test here runs on both ways of a post."""
    return each_post_path


def _post(
    project: Project, text: str, more: Mapping[str, str] | None = None, *, chunked: bool = False
) -> bytes:
    """A signed post as it goes over the wire."""
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
@pytest.mark.parametrize("cut", _CUTS)
async def test_a_post_in_any_pieces_is_answered_alike(
    services: Services, project: Project, cut: str, chunked: bool
) -> None:
    """Status, headers and body are those of a post in one piece."""
    data = _post(project, "hello", {"X-Request-Id": "mine-1"}, chunked=chunked)
    head_end = data.index(b"\r\n\r\n") + 4
    places = [head_end if place == -1 else place for place in _CUTS[cut]]
    async with raw_connection(services.a.port) as (reader, writer):
        for start, end in zip([0, *places], [*places, len(data)], strict=True):
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


async def test_posts_that_come_together_are_answered_in_their_order(
    services: Services, project: Project
) -> None:
    """HTTP/1.1 pipelining: each is begun when the one before is answered."""
    texts = [f"m{number}" for number in range(12)]
    async with raw_connection(services.a.port) as (reader, writer):
        writer.write(b"".join(_post(project, text) for text in texts))
        bodies = [msgspec.json.decode((await _answer(reader, writer)).body) for _ in texts]
    assert [(body["seq"], body["client_msg_id"]) for body in bodies] == [
        (number, f"id-{text}") for number, text in enumerate(texts, 1)
    ]


async def test_an_error_between_two_posts_takes_its_turn(
    services: Services, project: Project
) -> None:
    """And leaves the connection as it was."""
    good, bad = _post(project, "good"), _post(project, "bad").replace(b"v2=", b"v1=")
    async with raw_connection(services.a.port) as (reader, writer):
        writer.write(good + bad + good)
        answers = [await _answer(reader, writer) for _ in range(3)]
    assert [answer.status for answer in answers] == [201, 401, 200]
    assert len({answer.header("x-request-id") for answer in answers}) == 3


async def test_who_wants_the_connection_closed_gets_it_closed(
    services: Services, project: Project
) -> None:
    """After the answer, and the answer says so."""
    async with raw_connection(services.a.port) as (reader, writer):
        writer.write(_post(project, "last", {"Connection": "close"}))
        response = await _answer(reader, writer)
        assert (response.status, response.header("connection")) == (201, "close")
        assert await reader.read() == b""


async def test_a_client_that_waits_for_100_gets_it(services: Services, project: Project) -> None:
    """`Expect: 100-continue`: the body comes after the service asked for it."""
    data = _post(project, "asked for", {"Expect": "100-continue"})
    head_end = data.index(b"\r\n\r\n") + 4
    async with raw_connection(services.a.port) as (reader, writer):
        writer.write(data[:head_end])
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(data[head_end:])
        assert (await _answer(reader, writer)).status == 201
