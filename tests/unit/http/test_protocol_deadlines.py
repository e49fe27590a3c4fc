"""The protocol's waits for its client. The test advances the clock; sockets are real."""

from __future__ import annotations

from typing import Any

import pytest

from service.http.deadlines import (
    BODY_TIMEOUT_S,
    HEADERS_TIMEOUT_S,
    KEEP_ALIVE_S,
    LINGER_S,
    STALL_S,
    SWEEP_EVERY_S,
)
from tests.support.protocol_server import (
    GET,
    EchoApp,
    ProtocolServer,
    answer_of,
    protocol_server,
)
from tests.support.raw_stream import raw_connection
from tests.support.waiting import wait_until


async def _connected(server: ProtocolServer) -> None:
    await wait_until(lambda: bool(server.state.connections), what="the connection")


_UNFINISHED_CHUNK = b"GET /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab"
_UNFINISHED_POST = b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"


@pytest.mark.parametrize("request_", [_UNFINISHED_CHUNK, _UNFINISHED_POST], ids=["GET", "POST"])
async def test_a_response_before_the_end_of_its_request_ends_the_connection(
    request_: bytes,
) -> None:
    """It says `Connection: close`, is sent whole, and input is dropped for a second."""
    async with (
        protocol_server(EchoApp(reads_body=False)) as server,
        raw_connection(server.port) as (reader, writer),
    ):
        writer.write(request_)
        response = await answer_of(reader, writer)
        assert (response.status, response.header("connection")) == (200, "close")
        server.connection.data_received(b"more")
        server.pass_time(LINGER_S)
        assert await reader.read() == b""
        await server.wait_gone()


async def test_line_ends_do_not_extend_the_wait_for_a_request() -> None:
    """They may precede a request, and complete nothing."""
    async with (
        protocol_server(EchoApp()) as server,
        raw_connection(server.port) as (reader, writer),
    ):
        writer.write(GET % b"a")
        assert (await answer_of(reader, writer)).status == 200
        connection = server.connection
        for _ in range(int(KEEP_ALIVE_S)):
            connection.data_received(b"\r\n")
            server.pass_time(1)
        await server.wait_gone()


async def test_a_second_request_without_its_end_times_out() -> None:
    """Pipelining: the time for its body begins when its turn comes."""
    app = EchoApp()
    async with (
        protocol_server(app) as server,
        raw_connection(server.port) as (reader, writer),
    ):
        writer.write(GET % b"a" + _UNFINISHED_POST)
        assert (await answer_of(reader, writer)).status == 200
        await wait_until(lambda: len(app.paths) == 2, what="the second request")
        server.pass_time(BODY_TIMEOUT_S)
        assert server.state.connections
        server.pass_time(2 * SWEEP_EVERY_S)
        await server.wait_gone()


@pytest.mark.parametrize("before", [b"", GET % b"a"], ids=["first", "second"])
async def test_a_head_without_its_end_times_out(before: bytes) -> None:
    """10 s after connecting or after its first byte; more bytes do not extend it."""
    async with (
        protocol_server(EchoApp()) as server,
        raw_connection(server.port) as (reader, writer),
    ):
        await _connected(server)
        if before:
            writer.write(before)
            assert (await answer_of(reader, writer)).status == 200
        connection = server.connection
        connection.data_received(b"GET /b HTTP/1.1\r\nA: ")
        for _ in range(int(HEADERS_TIMEOUT_S)):
            assert not connection.transport.is_closing()
            connection.data_received(b"x")
            server.pass_time(1)
        await server.wait_gone()


async def test_a_connection_without_a_byte_times_out() -> None:
    """10 s after connecting."""
    async with protocol_server(EchoApp()) as server, raw_connection(server.port):
        await _connected(server)
        server.pass_time(HEADERS_TIMEOUT_S)
        await server.wait_gone()


async def test_a_response_that_is_not_read_is_aborted() -> None:
    """After 30 s in which the client took no byte, also of a complete response."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        body = b"x" * 8_000_000
        headers = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async with (
        protocol_server(app) as server,
        raw_connection(server.port, receive_buffer_bytes=4096) as (reader, writer),
    ):
        writer.write(GET % b"a")
        await reader.readexactly(12)
        await wait_until(lambda: not server.state.tasks, what="the answer's end")
        server.pass_time(STALL_S - 1)
        assert server.state.connections
        # Any progress starts the 30 s again.
        taken = 0
        while taken < 1_000_000:
            taken += len(await reader.read(65_536))
        server.pass_time(STALL_S - 1)
        assert server.state.connections
        server.pass_time(2)
        await server.wait_gone()


async def test_when_taken_calls_back_once() -> None:
    """When the client has taken the response, at once if it has, and when it is gone."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        body = b"x" * 8_000_000
        headers = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async with (
        protocol_server(app) as server,
        raw_connection(server.port, receive_buffer_bytes=4096) as (reader, writer),
    ):
        writer.write(GET % b"a")
        await reader.readuntil(b"\r\n\r\n")
        await wait_until(lambda: not server.state.tasks, what="the answer's end")
        calls: list[str] = []
        server.connection.when_taken(lambda: calls.append("taken"))
        await reader.readexactly(1_000_000)
        assert calls == []
        await reader.readexactly(7_000_000)
        await wait_until(lambda: calls == ["taken"], what="the callback")
        server.connection.when_taken(lambda: calls.append("at once"))
        assert calls == ["taken", "at once"]
        writer.write(GET % b"a")
        await reader.readuntil(b"\r\n\r\n")
        await wait_until(lambda: not server.state.tasks, what="the second answer's end")
        server.connection.when_taken(lambda: calls.append("gone"))
    await wait_until(
        lambda: calls == ["taken", "at once", "gone"], what="the callback at the connection's end"
    )
