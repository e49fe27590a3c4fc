"""The wire of one open stream: sends bytes, and reports whether the client takes them.

One interface with two implementations. `TransportWire` writes to uvicorn's transport directly:
one system call per write and no task, so one loop can serve thousands of connections. `AsgiWire`
uses plain ASGI and runs on any server. What the bytes mean is not known here.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Protocol, cast

from litestar.types import Receive, Scope, Send

from service.http.server_connection import ServerConnection, server_connection_of
from service.http.uvicorn_internals import duplicate_socket

# Of the 5 s that the end of access may take (docs/protocol.md, G9), the part of the last write.
_SEND_TIMEOUT_S = 2.0
_SEND_BUFFER_BYTES = 128 * 1024
_MAX_PENDING_BYTES = 64 * 1024


class Chunk:
    """Bytes that go to many connections, framed for HTTP once and not for each of them."""

    __slots__ = ("data", "framed")

    def __init__(self, data: bytes) -> None:
        self.data = data
        # As one chunk of HTTP/1.1 chunked transfer coding (RFC 9112 §7.1).
        self.framed = b"%x\r\n%b\r\n" % (len(data), data)


class Wire(Protocol):
    """How a stream is written. `write` never blocks and never fails; check `blocked` before."""

    @property
    def lost(self) -> bool:
        """Whether the client is gone."""

    @property
    def blocked(self) -> bool:
        """Whether the client takes no more for now."""

    @property
    def backlog_bytes(self) -> int:
        """How many bytes were written and not taken yet."""

    def on_change(self, callback: object) -> None:
        """Call `callback()` when the client is gone, or takes bytes again."""

    async def start(self, headers: list[tuple[bytes, bytes]]) -> None:
        """Send the status line 200 and the headers."""

    def write(self, chunk: Chunk) -> None:
        """Send a chunk."""

    def offer(self, chunk: Chunk) -> bool:
        """Send a chunk unless the client is gone or takes no more; return whether it was sent."""

    async def finish(self) -> None:
        """End the response; wait for the client for `_SEND_TIMEOUT_S` at most."""


class _Callback(Protocol):
    def __call__(self) -> None: ...


def wire_for(scope: Scope, receive: Receive, send: Send, *, dead_after_s: float) -> Wire:
    """Return the fastest wire that the server offers.

    Where the system supports it, a client whose host acknowledges nothing for `dead_after_s`
    counts as gone.
    """
    connection = server_connection_of(scope)
    if connection is not None:
        return TransportWire(connection, send, dead_after_s)
    return AsgiWire(receive, send)


class TransportWire:
    """Writes to the transport of the server's own connection."""

    __slots__ = ("_connection", "_dead_after_s", "_send", "_started", "_transport")

    def __init__(self, connection: ServerConnection, send: Send, dead_after_s: float) -> None:
        self._dead_after_s = dead_after_s
        self._connection = connection
        self._transport = connection.transport
        self._send = send
        self._started = False

    @property
    def lost(self) -> bool:
        return self._connection.lost or self._transport.is_closing()

    @property
    def blocked(self) -> bool:
        return self._connection.flow.write_paused

    @property
    def backlog_bytes(self) -> int:
        return self._transport.get_write_buffer_size()

    def on_change(self, callback: object) -> None:
        self._connection.on_change = cast("_Callback", callback)

    async def start(self, headers: list[tuple[bytes, bytes]]) -> None:
        # Through the server, so that it adds its headers and knows that the response has begun.
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        self._started = True
        # From here on the client is blocked when the socket does not take a byte at once.
        self._transport.set_write_buffer_limits(high=0)
        _bound_kernel(self._transport, self._dead_after_s)
        self._connection.forget_request()

    def write(self, chunk: Chunk) -> None:
        self._transport.write(chunk.framed)

    def offer(self, chunk: Chunk) -> bool:
        # `blocked`, `lost` and `write` in one call, because every delivery makes it.
        connection, transport = self._connection, self._transport
        if connection.flow.write_paused or connection.lost or transport.is_closing():
            return False
        transport.write(chunk.framed)
        return True

    async def finish(self) -> None:
        self._connection.on_change = None
        if self.lost:
            return
        if self.blocked or not self._started:
            # The client is not reading: the end would wait behind what it has not read.
            self._transport.abort()
            return
        try:
            async with asyncio.timeout(_SEND_TIMEOUT_S):
                await self._send({"type": "http.response.body", "body": b"", "more_body": False})
        except TimeoutError:
            self._transport.abort()
        if not self.lost:
            self._transport.set_write_buffer_limits()


def _bound_kernel(transport: asyncio.Transport, dead_after_s: float) -> None:
    """Bound what the kernel holds for a client, and how long it waits for a lost host.

    By default it buffers megabytes for a client that reads nothing, and retransmits for a quarter
    of an hour to a host that vanished without closing (RFC 5482: TCP_USER_TIMEOUT).
    """
    with contextlib.suppress(OSError):
        own = duplicate_socket(transport)
        if own is None:
            return
        with own:
            own.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
            if hasattr(socket, "TCP_USER_TIMEOUT"):
                timeout_ms = int(dead_after_s * 1000)
                own.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, timeout_ms)


class AsgiWire:
    """Writes through ASGI's `send`, in a task of its own."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._lost = False
        self._finishing = False
        self._callback: _Callback | None = None
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def lost(self) -> bool:
        return self._lost

    @property
    def blocked(self) -> bool:
        return self._pending_bytes >= _MAX_PENDING_BYTES

    @property
    def backlog_bytes(self) -> int:
        return self._pending_bytes

    def on_change(self, callback: object) -> None:
        self._callback = cast("_Callback", callback)

    async def start(self, headers: list[tuple[bytes, bytes]]) -> None:
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        self._tasks = [
            asyncio.create_task(self._pump(), name="stream writer"),
            asyncio.create_task(self._watch(), name="stream watcher"),
        ]

    def write(self, chunk: Chunk) -> None:
        self._pending.append(chunk.data)
        self._pending_bytes += len(chunk.data)
        self._wake.set()

    def offer(self, chunk: Chunk) -> bool:
        if self.blocked or self.lost:
            return False
        self.write(chunk)
        return True

    async def finish(self) -> None:
        self._finishing = True
        self._callback = None
        self._wake.set()
        if self._tasks:
            pump, watch = self._tasks
            if not self.blocked:
                await asyncio.wait([pump], timeout=_SEND_TIMEOUT_S)
            for task in (pump, watch):
                task.cancel()
            await asyncio.gather(pump, watch, return_exceptions=True)

    async def _pump(self) -> None:
        try:
            while not self._lost:
                await self._wake.wait()
                self._wake.clear()
                while self._pending:
                    body = b"".join(self._pending)
                    self._pending.clear()
                    await self._send(
                        {"type": "http.response.body", "body": body, "more_body": True}
                    )
                    self._pending_bytes -= len(body)
                self._notify()
                if self._finishing:
                    with contextlib.suppress(OSError):
                        await self._send(
                            {"type": "http.response.body", "body": b"", "more_body": False}
                        )
                    return
        except OSError:
            self._lose()

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._lose()

    def _lose(self) -> None:
        self._lost = True
        self._wake.set()
        self._notify()

    def _notify(self) -> None:
        if self._callback is not None:
            self._callback()
