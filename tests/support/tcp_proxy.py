"""A TCP proxy that can delay, stall, cut and refuse connections: the network of the fault tests.

It forwards bytes and knows no protocol. It runs in the caller's event loop; a seed makes its
random delays and cuts repeatable.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from types import TracebackType
from typing import Self

_CHUNK_BYTES = 65_536
_CONNECT_TIMEOUT_S = 5.0
# Linger on, zero seconds: close() sends RST and drops what was not sent.
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class _Link:
    """One accepted connection, and the connection to the target that belongs to it."""

    def __init__(self, client: asyncio.StreamWriter) -> None:
        self.writers = [client]
        self.tasks: list[asyncio.Task[None]] = []

    def reset(self) -> None:
        for writer in self.writers:
            raw = writer.get_extra_info("socket")
            if raw is not None:
                with contextlib.suppress(OSError):
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            writer.transport.abort()


class TcpProxy:
    """Listens on a loopback port and forwards everything to `target_port`, until a fault is set.

    `delay_s` delays each chunk, in both directions, by a random time up to twice itself.
    `bytes_per_s` limits the rate. `stall()` keeps connections open, accepts new ones, and
    forwards nothing. `cut()` resets open connections; `refuse()` stops listening as well.
    `heal()` ends all of these.
    """

    def __init__(self, target_port: int, *, seed: int = 0, port: int = 0) -> None:
        self.port = port
        self.target_port = target_port
        self.delay_s = 0.0
        self.bytes_per_s: float | None = None
        self.connections_made = 0
        self._random = random.Random(seed)
        self._passing = asyncio.Event()
        self._passing.set()
        self._links: dict[int, _Link] = {}  # by number, in order of acceptance
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        await self._listen()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.refuse()
        tasks = [task for link in self._links.values() for task in link.tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def open_connections(self) -> int:
        """How many accepted connections have not ended."""
        return len(self._links)

    def cut(self, share: float = 1.0) -> int:
        """Reset open connections (RST), each with probability `share`; return how many."""
        links = [link for link in self._links.values() if self._random.random() < share]
        for link in links:
            link.reset()
        return len(links)

    async def refuse(self) -> None:
        """Reset open connections and stop listening: the kernel refuses new ones."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.cut()

    def stall(self) -> None:
        """Forward nothing more, in either direction, and keep all connections open."""
        self._passing.clear()

    async def heal(self) -> None:
        """End every fault; bytes that a stall held back are forwarded."""
        self.delay_s = 0.0
        self.bytes_per_s = None
        self._passing.set()
        if self._server is None:
            await self._listen()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(
            self._accept, "127.0.0.1", self.port, limit=_CHUNK_BYTES, backlog=1024
        )
        self.port = self._server.sockets[0].getsockname()[1]

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Not a coroutine: asyncio.start_server would report a cancelled one as an error.
        self.connections_made += 1
        number = self.connections_made
        link = self._links[number] = _Link(writer)
        link.tasks.append(asyncio.create_task(self._run(number, link, reader, writer)))

    async def _run(
        self,
        number: int,
        link: _Link,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        try:
            await self._serve(link, reader, writer)
        finally:
            link.reset()
            del self._links[number]

    async def _serve(
        self, link: _Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        # In a stalled network the connection to the target cannot be made either.
        await self._passing.wait()
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                far_reader, far_writer = await asyncio.open_connection(
                    "127.0.0.1", self.target_port, limit=_CHUNK_BYTES
                )
        except OSError:
            return
        link.writers.append(far_writer)
        pumps = [
            asyncio.create_task(self._pump(link, reader, far_writer)),
            asyncio.create_task(self._pump(link, far_reader, writer)),
        ]
        link.tasks += pumps
        try:
            await asyncio.gather(*pumps)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump(
        self, link: _Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            while data := await reader.read(self._chunk()):
                await self._passing.wait()
                if self.delay_s:
                    await asyncio.sleep(self.delay_s * self._random.uniform(0, 2))
                if self.bytes_per_s is not None:
                    await asyncio.sleep(len(data) / self.bytes_per_s)
                writer.write(data)
                await writer.drain()
            await self._passing.wait()
            if writer.can_write_eof():
                writer.write_eof()
        except OSError:
            # One side was reset: reset the other.
            link.reset()

    def _chunk(self) -> int:
        if self.bytes_per_s is None:
            return _CHUNK_BYTES
        # Ten small pieces a second keep the rate steady.
        return max(1, min(_CHUNK_BYTES, int(self.bytes_per_s / 10)))
