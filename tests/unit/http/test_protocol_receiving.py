"""Bounds of what is received: `service/http/protocol_receiving.py`. Sockets are real."""

from __future__ import annotations

import asyncio

import pytest

from service.http.protocol_receiving import MAX_HEADER_BYTES
from tests.support.protocol_server import GET, EchoApp, answer_of, protocol_server
from tests.support.raw_stream import RawResponse, raw_connection
from tests.support.waiting import wait_until


@pytest.mark.parametrize("piece", [1 << 20, 1000], ids=["at once", "in pieces"])
@pytest.mark.parametrize("beyond", [0, 1])
async def test_a_head_has_at_most_64_kib(beyond: int, piece: int) -> None:
    """Exactly, with request line and line ends, however the bytes are cut."""
    frame = b"GET /a HTTP/1.1\r\nHost: x\r\nA: %s\r\n\r\n"
    filler = b"y" * (MAX_HEADER_BYTES - len(frame % b"") + beyond)
    data = frame % filler
    async with (
        protocol_server(EchoApp()) as server,
        raw_connection(server.port) as (reader, writer),
    ):
        await wait_until(lambda: bool(server.state.connections), what="the connection")
        for start in range(0, len(data), piece):
            server.connection.data_received(data[start : start + piece])
        assert (await answer_of(reader, writer)).status == (400 if beyond else 200)


_CHUNKED = b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n"


@pytest.mark.parametrize(
    "endless",
    [
        (b"GET /", b"y"), (b"GET /a HTTP/1.1\r\nHost: x\r\nA: ", b"y"),
        (b"GET /a HTTP/1.1\r\nHost: x\r\n", b"A: y\r\n"), (_CHUNKED + b"0\r\nA: ", b"y"),
        (_CHUNKED + b"0\r\n", b"A: y\r\n"), (_CHUNKED + b"2;a=", b"y"), (_CHUNKED, b"0"),
        (GET % b"a", b"\r\n"),
    ],
    ids=["target", "header", "headers", "trailer", "trailers", "extension", "size", "line ends"],
)  # fmt: skip
async def test_each_part_of_a_request_has_a_bound(endless: tuple[bytes, bytes]) -> None:
    """In each state of the parser, 64 KiB without a result are refused."""
    begin, again = endless
    async with (
        protocol_server(EchoApp()) as server,
        raw_connection(server.port) as (reader, writer),
    ):
        await wait_until(lambda: bool(server.state.connections), what="the connection")
        connection = server.connection
        connection.data_received(begin)
        connection.data_received(again * (MAX_HEADER_BYTES // len(again) + 1))
        held = [await answer_of(reader, writer)]
        if begin == GET % b"a":
            held.append(await answer_of(reader, writer))
        assert held[-1].status == 400
        assert server.intake.pending_bytes == 0


async def test_pending_bytes_of_all_connections_have_a_bound() -> None:
    """Unfinished bodies, heads, and requests that wait behind others: 503 beyond it."""
    head = b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n"
    app = EchoApp()
    async with (
        protocol_server(app, limit_bytes=100_000) as server,
        raw_connection(server.port) as (one, one_writer),
        raw_connection(server.port) as (two, two_writer),
    ):
        one_writer.write(head + b"x" * 59_999)
        await wait_until(lambda: server.intake.pending_bytes > 59_999, what="the first body")
        two_writer.write(head + b"x" * 59_999)
        refused = await answer_of(two, two_writer)
        assert (refused.status, refused.header("retry-after")) == (503, "1")
        assert (await asyncio.gather(_answer_after(one_writer, b"x", one)))[0].status == 200
        await wait_until(lambda: server.intake.pending_bytes == 0, what="nothing pending")


async def _answer_after(
    writer: asyncio.StreamWriter, data: bytes, reader: asyncio.StreamReader
) -> RawResponse:
    writer.write(data)
    return await answer_of(reader, writer)


async def test_a_whole_request_is_served_when_the_bound_is_reached() -> None:
    """A slow client does not block requests that arrive in one piece."""
    async with (
        protocol_server(EchoApp(), limit_bytes=1000) as server,
        raw_connection(server.port) as (_, slow),
        raw_connection(server.port) as (reader, writer),
    ):
        slow.write(b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 990\r\n\r\n" + b"x" * 900)
        await wait_until(lambda: server.intake.pending_bytes > 900, what="the slow body")
        body = b"x" * 5000
        writer.write(b"POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n" + body)
        assert (await answer_of(reader, writer)).body == b"/b 5000"


async def test_requests_that_wait_behind_another_are_counted() -> None:
    """Pipelining: their heads and bodies are held too."""
    app = EchoApp()
    app.go_on.clear()
    post = b"POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n" + b"x" * 5000
    async with (
        protocol_server(app) as server,
        raw_connection(server.port) as (reader, writer),
    ):
        writer.write(GET % b"a" + post + post)
        await wait_until(lambda: server.intake.pending_bytes > 10_000, what="the two that wait")
        app.go_on.set()
        assert [(await answer_of(reader, writer)).status for _ in range(3)] == [200] * 3
        writer.write(GET % b"a")
        assert (await answer_of(reader, writer)).status == 200
        assert server.intake.pending_bytes == 0
