"""Single appends that the protocol serves without the application: the fast path."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from uvicorn.server import ServerState

from service.http.protocol import StreamingProtocol
from service.http.server import config
from service.routes.direct_append import DirectAppend
from streams.log.log import Appended
from streams.model.events import Content, Message
from tests.support.raw_stream import RawResponse, raw_connection
from tests.support.waiting import wait_until

_POST = b"POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"


def _appended_message() -> list[Appended]:
    message = Message(
        seq=1, message_id="m", client_msg_id=None, project_id="p", user_id="u",
        content=Content("x", "user", "chat", "client"), timestamp="now", metadata=cast("Any", {}),
    )  # fmt: skip
    return [Appended(message, duplicate=False)]


class _Direct(DirectAppend):
    """Takes every request; its appends end when the test ends them."""

    def __init__(self) -> None:
        super().__init__(cast("Any", None), cast("Any", None), answers_origins=False)
        self.begun: list[asyncio.Future[list[Appended]]] = []
        self.bodies: list[bytes] = []

    def project_of(self, scope: Any) -> str | None:
        return "p"

    def begin(self, project_id: str, scope: Any, body: bytes) -> asyncio.Future[list[Appended]]:
        self.bodies.append(body)
        self.begun.append(asyncio.get_running_loop().create_future())
        return self.begun[-1]


class _Server:
    """A real server on a loopback port, whose application must not be called."""

    def __init__(self, port: int, direct: _Direct, state: ServerState) -> None:
        self.port = port
        self.direct = direct
        self.state = state

    @property
    def connection(self) -> StreamingProtocol:
        """The only connection."""
        (connection,) = self.state.connections
        return cast("StreamingProtocol", connection)

    async def begun(self, count: int) -> asyncio.Future[list[Appended]]:
        """Wait until `count` appends have begun; return the newest."""
        await wait_until(lambda: len(self.direct.begun) == count, what=f"append {count}")
        return self.direct.begun[-1]


async def _must_not_be_called(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError("the application was called")


@contextlib.asynccontextmanager
async def _serving(app: Any = _must_not_be_called) -> AsyncIterator[_Server]:
    direct, state = _Direct(), ServerState()
    settings = config(app, host="127.0.0.1", port=0)
    settings.load()
    server = await asyncio.get_running_loop().create_server(
        lambda: StreamingProtocol(direct, config=settings, server_state=state, app_state={}),
        "127.0.0.1",
        0,
    )
    try:
        yield _Server(server.sockets[0].getsockname()[1], direct, state)
    finally:
        server.close()
        for connection in list(state.connections):
            cast("StreamingProtocol", connection).transport.abort()


async def _response(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> RawResponse:
    response = RawResponse(reader, writer)
    await response.read_head()
    await response.wait_end()
    return response


async def test_an_append_is_among_the_tasks_that_the_server_waits_for() -> None:
    """At shutdown the server waits for `tasks`, and otherwise would end before the response."""
    async with _serving() as server, raw_connection(server.port) as (reader, writer):
        writer.write(_POST)
        append = await server.begun(1)
        assert server.state.tasks == {cast("Any", append)}
        append.set_result(_appended_message())
        assert (await _response(reader, writer)).status == 201
        assert not server.state.tasks


@pytest.mark.parametrize("cut", range(1, len(_POST)))
async def test_a_post_takes_the_fast_path_when_its_body_arrives_with_the_end_of_its_head(
    cut: int,
) -> None:
    """It is begun once with the whole body; otherwise the application is called once."""
    called: list[bytes] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message["body"], message["more_body"]
        called.append(body)
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    head_bytes = _POST.index(b"\r\n\r\n") + 4
    async with _serving(app) as server, raw_connection(server.port) as (reader, writer):
        await wait_until(lambda: bool(server.state.connections), what="the connection")
        # In exactly these pieces, which a socket does not guarantee.
        server.connection.data_received(_POST[:cut])
        assert (server.direct.bodies, called) == ([], [])
        server.connection.data_received(_POST[cut:])
        if cut < head_bytes:
            assert server.direct.bodies == [b"{}"]
            server.direct.begun[0].set_result(_appended_message())
        assert (await _response(reader, writer)).status == (201 if cut < head_bytes else 204)
        assert (server.direct.bodies, called) == (
            ([b"{}"], []) if cut < head_bytes else ([], [b"{}"])
        )


async def test_a_bug_is_logged_when_the_client_has_left(caplog: pytest.LogCaptureFixture) -> None:
    """There is no response that would show it."""
    async with _serving() as server:
        async with raw_connection(server.port) as (_, writer):
            writer.write(_POST)
            append = await server.begun(1)
        await wait_until(lambda: not server.state.connections, what="the end")
        append.set_exception(ZeroDivisionError("a bug"))
        await wait_until(lambda: "request failed" in caplog.text, what="the log")
        await wait_until(lambda: not server.state.tasks, what="the answer's end")
        assert "Exception in ASGI application" not in caplog.text


async def test_an_append_that_the_server_cancels_is_answered_503() -> None:
    """At shutdown, if a store does not answer: the outcome is unknown."""
    async with _serving() as server, raw_connection(server.port) as (reader, writer):
        writer.write(_POST)
        (await server.begun(1)).cancel()
        response = await _response(reader, writer)
        assert (response.status, response.header("retry-after")) == (503, "1")


async def test_a_client_that_has_left_gets_no_response() -> None:
    """The append ends, and its request is not counted as answered."""
    async with _serving() as server:
        async with raw_connection(server.port) as (_, writer):
            writer.write(_POST)
            append = await server.begun(1)
        await wait_until(lambda: not server.state.connections, what="the end")
        append.set_result(_appended_message())
        await wait_until(lambda: not server.state.tasks, what="the append's end")
        assert server.state.total_requests == 0


async def test_a_client_that_reads_no_responses_gets_no_further_ones() -> None:
    """§6, backpressure: the next response waits until the client takes bytes again."""
    async with (
        _serving() as server,
        raw_connection(server.port, receive_buffer_bytes=4096) as (reader, writer),
    ):
        writer.write(_POST)
        append = await server.begun(1)
        connection = server.connection
        own = connection.transport.get_extra_info("socket")
        with socket.socket(fileno=socket.dup(own.fileno())) as copy:
            copy.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        connection.transport.set_write_buffer_limits(high=0)
        filler = 1 << 20
        connection.transport.write(b"x" * filler)
        await wait_until(lambda: connection.flow.write_paused, what="a full buffer")
        append.set_result(_appended_message())
        await wait_until(lambda: append not in cast("Any", server.state.tasks), what="the append")
        waiting = connection.transport.get_write_buffer_size()
        assert len(server.state.tasks) == 1
        await reader.readexactly(filler)
        assert (await _response(reader, writer)).status == 201
        assert waiting <= filler


async def test_a_request_with_a_malformed_body_is_not_begun() -> None:
    """Its chunked body has no valid chunk size."""
    head = b"POST /p HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with _serving() as server, raw_connection(server.port) as (reader, writer):
        writer.write(head + b"zz\r\n")
        assert (await _response(reader, writer)).status == 400
        assert server.direct.begun == []
