"""The service's HTTP protocol on a loopback port, serving applications of tests."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, cast

from uvicorn.server import ServerState

from service.http.deadlines import sweep
from service.http.fast_path import FastPath
from service.http.intake import Intake
from service.http.protocol import StreamingProtocol
from service.http.server import config
from tests.support.raw_stream import RawResponse
from tests.support.waiting import wait_until

GET = b"GET /%s HTTP/1.1\r\nHost: x\r\n\r\n"


class Clock:
    """Monotonic seconds that a test sets."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class ProtocolServer:
    """A listening server; its deadlines are checked when a test advances the clock."""

    def __init__(self, port: int, state: ServerState, intake: Intake, clock: Clock) -> None:
        self.port = port
        self.state = state
        self.intake = intake
        self.clock = clock

    @property
    def connection(self) -> StreamingProtocol:
        """The only connection."""
        (connection,) = self.state.connections
        return cast("StreamingProtocol", connection)

    def pass_time(self, seconds: float) -> None:
        """Advance the clock second by second, and check all connections after each."""
        for _ in range(round(seconds)):
            self.clock.now_s += 1.0
            sweep(cast("Any", self.state.connections), self.clock.now_s)

    async def wait_gone(self) -> None:
        """Wait until there is no connection."""
        await wait_until(lambda: not self.state.connections, what="the connections to end")


class EchoApp:
    """Answers each request with its path and its body's size; records paths and headers."""

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


async def answer_of(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> RawResponse:
    """Read the next response to its end."""
    response = RawResponse(reader, writer)
    await response.read_head()
    await response.wait_end()
    return response


@contextlib.asynccontextmanager
async def protocol_server(
    app: Any, *, fast_path: FastPath | None = None, limit_bytes: int = 0
) -> AsyncIterator[ProtocolServer]:
    """Serve an ASGI application; `limit_bytes` bounds the pending bytes (0: no bound)."""
    clock = Clock()
    intake, state = Intake(limit_bytes=limit_bytes, clock=clock), ServerState()
    settings = config(app, host="127.0.0.1", port=0)
    settings.load()
    server = await asyncio.get_running_loop().create_server(
        lambda: StreamingProtocol(
            fast_path, intake, config=settings, server_state=state, app_state={}
        ),
        "127.0.0.1",
        0,
    )
    try:
        yield ProtocolServer(server.sockets[0].getsockname()[1], state, intake, clock)
    finally:
        server.close()
        for connection in list(state.connections):
            cast("StreamingProtocol", connection).transport.abort()
        await asyncio.gather(*state.tasks, return_exceptions=True)
