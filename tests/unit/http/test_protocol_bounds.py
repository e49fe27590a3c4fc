"""The server's protocol and hostile clients: one answer to one request, bounds, and deadlines.

Time is passed by the test; sockets are real.
"""

from __future__ import annotations

import asyncio
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
from service.http.protocol_receiving import MAX_HEADER_BYTES
from tests.support.protocol_server import ProtocolServer, protocol_server
from tests.support.raw_stream import RawResponse, raw_connection
from tests.support.waiting import wait_until

_GET = b"GET /%s HTTP/1.1\r\nHost: x\r\n\r\n"
_SECRET = b"GET /secret HTTP/1.1\r\nHost: x\r\n\r\n"


class _App:
    """Answers each request with its path, the body's size and the headers it was given."""

    def __init__(self, *, reads_body: bool = True) -> None:
        self.paths: list[str] = []
        self.headers: list[list[tuple[bytes, bytes]]] = []
        self.go_on = asyncio.Event()
        self.go_on.set()
        self._reads_body = reads_body

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.paths.append(scope["path"])
        size, more = 0, self._reads_body
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return
            size, more = size + len(message["body"]), message["more_body"]
        await self.go_on.wait()
        self.headers.append(scope["headers"])
        body = f"{scope['path']} {size}".encode()
        headers = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> RawResponse:
    response = RawResponse(reader, writer)
    await response.read_head()
    await response.wait_end()
    return response


async def _all(port: int, data: bytes) -> tuple[list[int], bytes]:
    """Send bytes, and read until the connection ends; return the statuses and all bytes."""
    async with raw_connection(port) as (reader, writer):
        writer.write(data)
        writer.write_eof()
        got = await reader.read()
    return [int(part[:3]) for part in got.split(b"HTTP/1.1 ")[1:]], got


# One request, one answer.


@pytest.mark.parametrize("framing", [b"Content-Length: %d", b"Transfer-Encoding: chunked"])
async def test_a_body_behind_an_upgrade_is_refused(framing: bytes) -> None:
    """RFC 9112 §11.2: the parser skips that body, and would take its bytes for a request."""
    line = framing % len(_SECRET) if b"%d" in framing else framing
    head = b"POST /a HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h\r\n%b\r\n\r\n" % line
    app = _App()
    async with (
        protocol_server(app) as server,
        raw_connection(server.port) as (reader, writer),
    ):
        writer.write(head + _SECRET)
        response = await _answer(reader, writer)
        assert (response.status, response.header("connection")) == (400, "close")
        server.pass_time(LINGER_S)
        assert await reader.read() == b""
    assert app.paths == []


async def test_an_upgrade_is_answered_and_ends_the_connection() -> None:
    """RFC 9110 §7.8: it may be ignored; what follows is of a protocol that is not spoken."""
    app = _App()
    async with (
        protocol_server(app) as server,
        raw_connection(server.port) as (reader, writer),
    ):
        writer.write(
            b"GET /a HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: h2c\r\n\r\n"
            + _SECRET
        )
        response = await _answer(reader, writer)
        assert (response.status, response.header("connection")) == (200, "close")
        assert await reader.read() == b""
    assert app.paths == ["/a"]


_REFUSED = {
    "connect": b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n",
    "no host": b"GET /a HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /a HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n",
    "another host": b"GET http://y/a HTTP/1.1\r\nHost: x\r\n\r\n",
    "fragment": b"GET /a#b HTTP/1.1\r\nHost: x\r\n\r\n",
    "asterisk": b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
    "HTTP/0.9": b"GET /a\r\n\r\n",
    "HTTP/2": b"GET /a HTTP/2.0\r\nHost: x\r\n\r\n",
    "preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "length and coding": b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "coding and length": b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
    b"Content-Length: 5\r\n\r\n0\r\n\r\n",
    "two lengths": b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n",
    "list of lengths": b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 0, 0\r\n\r\n",
    "signed length": b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: +0\r\n\r\n",
    "identity": b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: identity\r\n\r\n",
    "chunked twice": b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked first": b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, x\r\n\r\n"
    b"0\r\n\r\n",
    "unknown coding": b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: x, chunked\r\n\r\n"
    b"0\r\n\r\n",
    "coding in 1.0": b"POST /a HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "bare CR": b"GET /a HTTP/1.1\r\nHost: x\r\nA: b\rContent-Length: 5\r\n\r\n",
    "bare LF": b"GET /a HTTP/1.1\nHost: x\n\n",
    "folded line": b"GET /a HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n",
    "space before colon": b"GET /a HTTP/1.1\r\nHost: x\r\nContent-Length : 5\r\n\r\n",
    "NUL": b"GET /a HTTP/1.1\r\nHost: x\r\nA: b\0c\r\n\r\n",
    "hexadecimal prefix": b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"0x2\r\nab\r\n0\r\n\r\n",
}  # fmt: skip


@pytest.mark.parametrize("name", _REFUSED)
async def test_what_two_servers_could_read_differently_is_refused(name: str) -> None:
    """RFC 9112: 400 and the end of the connection; nothing behind it is a request."""
    app = _App(reads_body=False)
    async with protocol_server(app) as server:
        statuses, got = await _all(server.port, _REFUSED[name] + _SECRET)
    assert statuses == [400]
    assert b'"code":"VALIDATION_FAILED"' in got
    assert b"/secret" not in got
    assert "/secret" not in app.paths


async def test_trailers_are_no_headers() -> None:
    """RFC 9110 §6.5.1: they come after who calls was looked at; nor are they the next request's."""
    app = _App()
    async with (
        protocol_server(app) as server,
        raw_connection(server.port) as (reader, writer),
    ):
        writer.write(
            b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n"
            b"0\r\nX-Seqstream-User: u\r\nAuthorization: Bearer t\r\n\r\n" + _GET % b"b"
        )
        assert [(await _answer(reader, writer)).body for _ in range(2)] == [b"/a 2", b"/b 0"]
    names = [[name for name, _ in headers] for headers in app.headers]
    assert names == [[b"host", b"transfer-encoding"], [b"host"]]


async def test_nothing_is_served_behind_a_last_request() -> None:
    """RFC 9112 §9.6: after `Connection: close` there is no further request."""
    app = _App()
    data = b"GET /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" + _SECRET
    async with protocol_server(app) as server, raw_connection(server.port) as (reader, writer):
        writer.write(data)
        assert (await _answer(reader, writer)).status == 200
        assert await reader.read() == b""
    assert app.paths == ["/a"]


async def test_an_error_waits_for_the_answers_before_it() -> None:
    """RFC 9112 §9.3.2: answers come in the order of the requests, or belong to others'."""
    app = _App()
    app.go_on.clear()
    async with (
        protocol_server(app) as server,
        raw_connection(server.port) as (reader, writer),
    ):
        writer.write(_GET % b"a" + _GET % b"b" + b"nonsense\r\n\r\n" + _SECRET)
        await wait_until(lambda: app.paths == ["/a"], what="the first request")
        app.go_on.set()
        answers = [await _answer(reader, writer) for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 400]
    assert [answer.body for answer in answers][:2] == [b"/a 0", b"/b 0"]
    assert app.paths == ["/a", "/b"]


async def test_a_response_under_way_is_not_broken_into() -> None:
    """An open stream's client that sends nonsense gets nothing in the middle of a frame."""
    go_on = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"one ", "more_body": True})
        await go_on.wait()
        await send({"type": "http.response.body", "body": b"two"})

    async with (
        protocol_server(app) as server,
        raw_connection(server.port) as (reader, writer),
    ):
        writer.write(_GET % b"a")
        response = RawResponse(reader, writer)
        await response.read_head()
        await wait_until(lambda: response.body == b"one ", what="the beginning")
        writer.write(b"nonsense\r\n\r\n")
        await wait_until(lambda: server.intake.unreported == 1, what="the refusal")
        go_on.set()
        await response.wait_end()
        assert response.body == b"one two"


# Bounds.


@pytest.mark.parametrize("piece", [1 << 20, 1000], ids=["at once", "in pieces"])
@pytest.mark.parametrize("beyond", [0, 1])
async def test_a_head_has_a_bound(beyond: int, piece: int) -> None:
    """64 KiB with its request line and its line ends, exactly, however it is cut."""
    frame = b"GET /a HTTP/1.1\r\nHost: x\r\nA: %s\r\n\r\n"
    filler = b"y" * (MAX_HEADER_BYTES - len(frame % b"") + beyond)
    data = frame % filler
    async with protocol_server(_App()) as server, raw_connection(server.port) as (reader, writer):
        await wait_until(lambda: bool(server.state.connections), what="the connection")
        for start in range(0, len(data), piece):
            server.connection.data_received(data[start : start + piece])
        assert (await _answer(reader, writer)).status == (400 if beyond else 200)


_CHUNKED = b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n"


@pytest.mark.parametrize(
    "endless",
    [
        (b"GET /", b"y"), (b"GET /a HTTP/1.1\r\nHost: x\r\nA: ", b"y"),
        (b"GET /a HTTP/1.1\r\nHost: x\r\n", b"A: y\r\n"), (_CHUNKED + b"0\r\nA: ", b"y"),
        (_CHUNKED + b"0\r\n", b"A: y\r\n"), (_CHUNKED + b"2;a=", b"y"), (_CHUNKED, b"0"),
        (_GET % b"a", b"\r\n"),
    ],
    ids=["target", "header", "headers", "trailer", "trailers", "extension", "size", "line ends"],
)  # fmt: skip
async def test_each_part_of_a_request_has_a_bound(endless: tuple[bytes, bytes]) -> None:
    """Bytes that lead to nothing are counted in whatever state the parser is: 64 KiB."""
    begin, again = endless
    async with protocol_server(_App()) as server, raw_connection(server.port) as (reader, writer):
        await wait_until(lambda: bool(server.state.connections), what="the connection")
        connection = server.connection
        connection.data_received(begin)
        connection.data_received(again * (MAX_HEADER_BYTES // len(again) + 1))
        held = [await _answer(reader, writer)]
        if begin == _GET % b"a":
            held.append(await _answer(reader, writer))
        assert held[-1].status == 400
        assert server.intake.pending_bytes == 0


async def test_pending_bytes_of_all_connections_have_a_bound() -> None:
    """Bodies that are on their way, heads, and requests that wait behind others."""
    head = b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n"
    app = _App()
    async with (
        protocol_server(app, limit_bytes=100_000) as server,
        raw_connection(server.port) as (one, one_writer),
        raw_connection(server.port) as (two, two_writer),
    ):
        one_writer.write(head + b"x" * 59_999)
        await wait_until(lambda: server.intake.pending_bytes > 59_999, what="the first body")
        two_writer.write(head + b"x" * 59_999)
        refused = await _answer(two, two_writer)
        assert (refused.status, refused.header("retry-after")) == (503, "1")
        assert (await asyncio.gather(_answer_after(one_writer, b"x", one)))[0].status == 200
        await wait_until(lambda: server.intake.pending_bytes == 0, what="nothing pending")


async def _answer_after(
    writer: asyncio.StreamWriter, data: bytes, reader: asyncio.StreamReader
) -> RawResponse:
    writer.write(data)
    return await _answer(reader, writer)


async def test_a_request_that_is_whole_is_served_though_the_bound_is_reached() -> None:
    """Who sends slowly keeps nobody else from sending what fits in one piece."""
    async with (
        protocol_server(_App(), limit_bytes=1000) as server,
        raw_connection(server.port) as (_, slow),
        raw_connection(server.port) as (reader, writer),
    ):
        slow.write(b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 990\r\n\r\n" + b"x" * 900)
        await wait_until(lambda: server.intake.pending_bytes > 900, what="the slow body")
        body = b"x" * 5000
        writer.write(b"POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n" + body)
        assert (await _answer(reader, writer)).body == b"/b 5000"


async def test_requests_that_wait_behind_another_are_counted() -> None:
    """Pipelining: their bodies and heads are held, too."""
    app = _App()
    app.go_on.clear()
    post = b"POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n" + b"x" * 5000
    async with (
        protocol_server(app) as server,
        raw_connection(server.port) as (reader, writer),
    ):
        writer.write(_GET % b"a" + post + post)
        await wait_until(lambda: server.intake.pending_bytes > 10_000, what="the two that wait")
        app.go_on.set()
        assert [(await _answer(reader, writer)).status for _ in range(3)] == [200] * 3
        writer.write(_GET % b"a")
        assert (await _answer(reader, writer)).status == 200
        assert server.intake.pending_bytes == 0


# Deadlines.


async def _connected(server: ProtocolServer) -> None:
    await wait_until(lambda: bool(server.state.connections), what="the connection")


_UNFINISHED_CHUNK = b"GET /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab"
_UNFINISHED_POST = b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"


@pytest.mark.parametrize("request_", [_UNFINISHED_CHUNK, _UNFINISHED_POST], ids=["GET", "POST"])
async def test_an_answer_before_the_end_of_its_request_ends_the_connection(
    request_: bytes,
) -> None:
    """It says so, goes out whole, and what still comes is dropped for a second."""
    async with (
        protocol_server(_App(reads_body=False)) as server,
        raw_connection(server.port) as (reader, writer),
    ):
        writer.write(request_)
        response = await _answer(reader, writer)
        assert (response.status, response.header("connection")) == (200, "close")
        server.connection.data_received(b"more")
        server.pass_time(LINGER_S)
        assert await reader.read() == b""
        await server.wait_gone()


async def test_a_lone_line_end_prolongs_nothing() -> None:
    """Only a request does."""
    async with protocol_server(_App()) as server, raw_connection(server.port) as (reader, writer):
        writer.write(_GET % b"a")
        assert (await _answer(reader, writer)).status == 200
        connection = server.connection
        for _ in range(int(KEEP_ALIVE_S)):
            connection.data_received(b"\r\n")
            server.pass_time(1)
        await server.wait_gone()


async def test_a_second_request_without_its_end_is_late_in_the_end() -> None:
    """Pipelining: it has the same time for its body from when its turn comes."""
    app = _App()
    async with (
        protocol_server(app) as server,
        raw_connection(server.port) as (reader, writer),
    ):
        writer.write(_GET % b"a" + _UNFINISHED_POST)
        assert (await _answer(reader, writer)).status == 200
        await wait_until(lambda: len(app.paths) == 2, what="the second request's begin")
        server.pass_time(BODY_TIMEOUT_S)
        assert server.state.connections
        server.pass_time(2 * SWEEP_EVERY_S)
        await server.wait_gone()


@pytest.mark.parametrize("before", [b"", _GET % b"a"], ids=["first", "second"])
async def test_a_head_without_its_end_is_late(before: bytes) -> None:
    """Ten seconds from connecting, or from its first byte; more bytes of it prolong nothing."""
    async with protocol_server(_App()) as server, raw_connection(server.port) as (reader, writer):
        await _connected(server)
        if before:
            writer.write(before)
            assert (await _answer(reader, writer)).status == 200
        connection = server.connection
        connection.data_received(b"GET /b HTTP/1.1\r\nA: ")
        for _ in range(int(HEADERS_TIMEOUT_S)):
            assert not connection.transport.is_closing()
            connection.data_received(b"x")
            server.pass_time(1)
        await server.wait_gone()


async def test_a_connection_without_a_byte_is_late() -> None:
    """Ten seconds from connecting."""
    async with protocol_server(_App()) as server, raw_connection(server.port):
        await _connected(server)
        server.pass_time(HEADERS_TIMEOUT_S)
        await server.wait_gone()


async def test_an_answer_that_nobody_takes_is_aborted() -> None:
    """Thirty seconds without a byte taken, also for an answer that is complete."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        body = b"x" * 8_000_000
        headers = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async with (
        protocol_server(app) as server,
        raw_connection(server.port, receive_buffer_bytes=4096) as (reader, writer),
    ):
        writer.write(_GET % b"a")
        await reader.readexactly(12)
        await wait_until(lambda: not server.state.tasks, what="the answer's end")
        server.pass_time(STALL_S - 1)
        assert server.state.connections
        # Each second that takes some begins anew.
        taken = 0
        while taken < 1_000_000:
            taken += len(await reader.read(65_536))
        server.pass_time(STALL_S - 1)
        assert server.state.connections
        server.pass_time(2)
        await server.wait_gone()


async def test_who_is_told_when_an_answer_is_taken() -> None:
    """What an answer holds is counted until its client has taken it, or is gone."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        body = b"x" * 8_000_000
        headers = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async with (
        protocol_server(app) as server,
        raw_connection(server.port, receive_buffer_bytes=4096) as (reader, writer),
    ):
        writer.write(_GET % b"a")
        await reader.readuntil(b"\r\n\r\n")
        await wait_until(lambda: not server.state.tasks, what="the answer's end")
        told: list[str] = []
        server.connection.when_taken(lambda: told.append("taken"))
        await reader.readexactly(1_000_000)
        assert told == []
        await reader.readexactly(7_000_000)
        await wait_until(lambda: told == ["taken"], what="being told")
        server.connection.when_taken(lambda: told.append("at once"))
        assert told == ["taken", "at once"]
        writer.write(_GET % b"a")
        await reader.readuntil(b"\r\n\r\n")
        await wait_until(lambda: not server.state.tasks, what="the second answer's end")
        server.connection.when_taken(lambda: told.append("gone"))
    await wait_until(lambda: told == ["taken", "at once", "gone"], what="being told of the end")
