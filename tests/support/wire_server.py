"""A real server on a loopback port that answers every request with a stream, and raw clients."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, cast

from uvicorn.server import ServerState

from service.http.protocol import StreamingProtocol
from service.http.server import config
from service.http.wire import AsgiWire, Wire, wire_for

HEADERS = [(b"content-type", b"text/event-stream")]
REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"

Handle = Callable[[Wire], Awaitable[None]]


@contextlib.asynccontextmanager
async def serving(handle: Handle, *, kind: type[Wire], starts: bool = True) -> AsyncIterator[int]:
    """Serve every request with `handle`, on a wire of `kind`; `starts` sends its head first."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if kind is AsgiWire:
            # As on an ASGI server that does not offer its transport.
            scope["extensions"] = {}
        await receive()
        wire = wire_for(scope, receive, send, dead_after_s=30)
        assert isinstance(wire, kind)
        if starts:
            await wire.start(HEADERS)
        await handle(wire)

    settings = config(app, host="127.0.0.1", port=0)
    settings.load()
    state = ServerState()
    server = await asyncio.get_running_loop().create_server(
        lambda: StreamingProtocol(config=settings, server_state=state, app_state={}),
        "127.0.0.1",
        0,
    )
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for connection in list(state.connections):
            cast("StreamingProtocol", connection).transport.abort()
        for task in list(state.tasks):
            task.cancel()
        await asyncio.gather(*state.tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def client(
    port: int, *, receive_buffer_bytes: int | None = None
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Connect and send the request; the connection is aborted at the end."""
    sock = socket.socket()
    if receive_buffer_bytes is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=sock, limit=4096)
    writer.write(REQUEST)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
