"""HTTP/1.1 requests whose response is kept as bytes, with the details that a client would hide.

For tests of literal bytes, of incomplete requests, and of clients that stop reading.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Mapping

from tests.support.waiting import wait_until


class RawResponse:
    """A response that is being received; `body` is what was received so far, dechunked."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self.status = 0
        self.headers: list[tuple[str, str]] = []
        self.body = b""
        self.ended = False
        self._reader = reader
        self._task: asyncio.Task[None] | None = None

    def header(self, name: str) -> str | None:
        """The value of a header, or None; it must not be there twice."""
        values = [value for key, value in self.headers if key.lower() == name.lower()]
        assert len(values) <= 1, f"{name} is there {len(values)} times"
        return values[0] if values else None

    @property
    def blocks(self) -> list[bytes]:
        """The complete blocks of the event stream so far, without their empty line.

        Leaves out `presence.changed`, which may arrive at any time.
        """
        blocks = self.body.split(b"\n\n")[:-1]
        return [block for block in blocks if not block.startswith(b"event: presence.changed\n")]

    @property
    def names(self) -> list[str]:
        """The names of the events so far."""
        return [
            block.split(b"\n")[0].removeprefix(b"event: ").decode()
            for block in self.blocks
            if block.startswith(b"event: ")
        ]

    async def read_head(self) -> None:
        """Read the status line and the headers; a task reads the body from then on."""
        async with asyncio.timeout(15):
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        status, *lines = head.split("\r\n")
        self.status = int(status.split(" ")[1])
        self.headers = [
            (name, value) for name, _, value in (line.partition(": ") for line in lines if line)
        ]
        self._task = asyncio.create_task(self._read_body())

    async def wait_for(self, event: str, *, timeout_s: float = 10.0) -> None:
        """Wait until an event of this name is received."""
        await wait_until(
            lambda: event in self.names, timeout_s=timeout_s, what=f"{event} (has {self.names})"
        )

    async def wait_end(self, *, timeout_s: float = 10.0) -> None:
        """Wait until the response has ended, completely or cut off."""
        await wait_until(lambda: self.ended, timeout_s=timeout_s, what="the end of the response")

    async def _read_body(self) -> None:
        try:
            length = self.header("content-length")
            if length is not None:
                self.body = await self._reader.readexactly(int(length))
            elif self.header("transfer-encoding") == "chunked":
                while size := int(await self._reader.readline(), 16):
                    self.body += await self._reader.readexactly(size)
                    await self._reader.readexactly(2)
        except (OSError, asyncio.IncompleteReadError, ValueError):
            # Cut off: what was received is kept.
            pass
        finally:
            self.ended = True

    async def close(self) -> None:
        """Abort the connection."""
        self.writer.transport.abort()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


@contextlib.asynccontextmanager
async def raw_connection(
    port: int, *, receive_buffer_bytes: int | None = None, segment_bytes: int | None = None
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A TCP connection to a loopback port, aborted at the end."""
    sock = socket.socket()
    if segment_bytes is not None:
        # Loopback's segments are so large that the kernel would buffer megabytes.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, segment_bytes)
    if receive_buffer_bytes is not None:
        # A large receive buffer would go on reading for a client that does not.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
    limit = 1 << 20 if receive_buffer_bytes is None else 4096
    reader, writer = await asyncio.open_connection(sock=sock, limit=limit)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


@contextlib.asynccontextmanager
async def raw_request(
    port: int,
    target: str,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
) -> AsyncIterator[RawResponse]:
    """Send one request and read the response's head; the body is read in the background."""
    async with raw_connection(port) as (reader, writer):
        lines = [f"{method} {target} HTTP/1.1", "Host: 127.0.0.1"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        response = RawResponse(reader, writer)
        await response.read_head()
        try:
            yield response
        finally:
            await response.close()
