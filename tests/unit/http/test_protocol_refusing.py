"""Input that the protocol refuses: `service/http/protocol_refusing.py` and `framing.py`."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from service.http.deadlines import LINGER_S
from tests.support.protocol_server import GET, EchoApp, answer_of, protocol_server
from tests.support.raw_stream import RawResponse, raw_connection
from tests.support.waiting import wait_until

_SECRET = b"GET /secret HTTP/1.1\r\nHost: x\r\n\r\n"


async def _exchange(port: int, data: bytes) -> tuple[list[int], bytes]:
    """Send bytes, and read until the connection ends; return the statuses and all bytes."""
    async with raw_connection(port) as (reader, writer):
        writer.write(data)
        writer.write_eof()
        got = await reader.read()
    return [int(part[:3]) for part in got.split(b"HTTP/1.1 ")[1:]], got


@pytest.mark.parametrize("framing", [b"Content-Length: %d", b"Transfer-Encoding: chunked"])
async def test_a_body_behind_an_upgrade_is_refused(framing: bytes) -> None:
    """RFC 9112 §11.2: the parser skips such a body, and would read its bytes as a request."""
    line = framing % len(_SECRET) if b"%d" in framing else framing
    head = b"POST /a HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h\r\n%b\r\n\r\n" % line
    app = EchoApp()
    async with (
        protocol_server(app) as server,
        raw_connection(server.port) as (reader, writer),
    ):
        writer.write(head + _SECRET)
        response = await answer_of(reader, writer)
        assert (response.status, response.header("connection")) == (400, "close")
        server.pass_time(LINGER_S)
        assert await reader.read() == b""
    assert app.paths == []


async def test_an_upgrade_is_ignored_and_ends_the_connection() -> None:
    """RFC 9110 §7.8: it is answered as HTTP/1.1; the bytes behind it may be another protocol's."""
    app = EchoApp()
    async with (
        protocol_server(app) as server,
        raw_connection(server.port) as (reader, writer),
    ):
        writer.write(
            b"GET /a HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: h2c\r\n\r\n"
            + _SECRET
        )
        response = await answer_of(reader, writer)
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
async def test_a_head_that_two_servers_could_read_differently_is_refused(name: str) -> None:
    """RFC 9112: 400, and the connection ends; nothing behind it is read as a request."""
    app = EchoApp(reads_body=False)
    async with protocol_server(app) as server:
        statuses, got = await _exchange(server.port, _REFUSED[name] + _SECRET)
    assert statuses == [400]
    assert b'"code":"VALIDATION_FAILED"' in got
    assert b"/secret" not in got
    assert "/secret" not in app.paths


async def test_trailers_are_no_headers() -> None:
    """RFC 9110 §6.5.1: they arrive after authentication; nor do they join the next request."""
    app = EchoApp()
    async with (
        protocol_server(app) as server,
        raw_connection(server.port) as (reader, writer),
    ):
        writer.write(
            b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n"
            b"0\r\nX-Seqstream-User: u\r\nAuthorization: Bearer t\r\n\r\n" + GET % b"b"
        )
        assert [(await answer_of(reader, writer)).body for _ in range(2)] == [b"/a 2", b"/b 0"]
    names = [[name for name, _ in headers] for headers in app.headers]
    assert names == [[b"host", b"transfer-encoding"], [b"host"]]


async def test_nothing_is_served_after_connection_close() -> None:
    """RFC 9112 §9.6: a request with `Connection: close` is the last one."""
    app = EchoApp()
    data = b"GET /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" + _SECRET
    async with protocol_server(app) as server, raw_connection(server.port) as (reader, writer):
        writer.write(data)
        assert (await answer_of(reader, writer)).status == 200
        assert await reader.read() == b""
    assert app.paths == ["/a"]


async def test_an_error_waits_for_the_responses_before_it() -> None:
    """RFC 9112 §9.3.2: responses are sent in the order of their requests."""
    app = EchoApp()
    app.go_on.clear()
    async with (
        protocol_server(app) as server,
        raw_connection(server.port) as (reader, writer),
    ):
        writer.write(GET % b"a" + GET % b"b" + b"nonsense\r\n\r\n" + _SECRET)
        await wait_until(lambda: app.paths == ["/a"], what="the first request")
        app.go_on.set()
        answers = [await answer_of(reader, writer) for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 400]
    assert [answer.body for answer in answers][:2] == [b"/a 0", b"/b 0"]
    assert app.paths == ["/a", "/b"]


async def test_an_error_does_not_interrupt_a_response() -> None:
    """A client that sends nonsense on an open stream gets no bytes in the middle of a frame."""
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
        writer.write(GET % b"a")
        response = RawResponse(reader, writer)
        await response.read_head()
        await wait_until(lambda: response.body == b"one ", what="the beginning")
        writer.write(b"nonsense\r\n\r\n")
        await wait_until(lambda: server.intake.unreported == 1, what="the refusal")
        go_on.set()
        await response.wait_end()
        assert response.body == b"one two"
