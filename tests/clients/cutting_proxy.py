"""A TCP proxy that cuts at a place in the response, and records what each request asks for.

Other than `tests/support/tcp_proxy.py`, which knows no protocol and cuts at a moment, it reads the
responses (`response_meter.py`), so that a cut falls after the head, after the first block, or in
the middle of a block, however fast the machine is. It forwards bytes unchanged until the cut.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections import deque
from types import TracebackType
from typing import Self

from tests.clients.requests_seen import Request, RequestReader
from tests.clients.response_meter import Cut, ResponseMeter

_CHUNK_BYTES = 65_536
_CONNECT_TIMEOUT_S = 5.0
# A client that reconnects without a pause is stopped by its cell's verdict, not by memory.
MAX_REQUESTS = 300
# Linger on, zero seconds: close() sends RST.
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class _Link:
    """One client's connection, and the connection to the target that belongs to it."""

    def __init__(self, client: asyncio.StreamWriter) -> None:
        self.client = client
        # drain() then waits until the kernel has everything: a cut loses nothing before its place.
        client.transport.set_write_buffer_limits(0)
        self.writers = [client]
        self.meter = ResponseMeter()
        self.requests = RequestReader()

    def close(self, *, reset: bool) -> None:
        for writer in self.writers:
            raw = writer.get_extra_info("socket")
            if reset and raw is not None:
                with contextlib.suppress(OSError):
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            writer.transport.abort()


class CuttingProxy:
    """Listens on a loopback port for one client's program and forwards to `host`:`port`."""

    def __init__(self, host: str, port: int) -> None:
        self.port = 0
        self.requests: list[Request] = []
        self.cuts_made = 0
        self.fault: str | None = None  # bytes that it could not read
        self._target = (host, port)
        self._open = asyncio.Event()
        self._open.set()
        self._next_cuts: deque[Cut] = deque()
        self._links: list[_Link] = []
        self._ended: list[ResponseMeter] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=_CHUNK_BYTES)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def heads(self) -> int:
        """How many response heads were forwarded."""
        return sum(meter.heads for meter in self._meters())

    def events(self, name: str) -> int:
        """How many SSE blocks with this event name were forwarded."""
        return sum(meter.events[name] for meter in self._meters())

    def answers(self) -> dict[int, int]:
        """How many responses had each status."""
        total: dict[int, int] = {}
        for meter in self._meters():
            for status, count in meter.statuses.items():
                total[status] = total.get(status, 0) + count
        return total

    def hold(self) -> None:
        """Let new connections wait, until `release()`."""
        self._open.clear()

    def release(self) -> None:
        """Let connections that wait, and new ones, pass."""
        self._open.set()

    def cut_next(self, *cuts: Cut) -> None:
        """Cut the next connections, one cut each."""
        self._next_cuts.extend(cuts)

    def cut_later(self, cut: Cut) -> None:
        """Set a cut of every open connection, counted from now."""
        for link in self._links:
            link.meter.set_cut(cut)

    def cut_now(self, *, reset: bool = True) -> None:
        """Cut every open connection."""
        for link in self._links:
            link.close(reset=reset)
            self.cuts_made += 1

    def _meters(self) -> list[ResponseMeter]:
        return [*self._ended, *(link.meter for link in self._links)]

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Not a coroutine: asyncio.start_server would report a cancelled one as an error.
        task = asyncio.create_task(self._run(_Link(writer), reader))
        self._tasks.add(task)
        task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.fault = repr(error)

    async def _run(self, link: _Link, reader: asyncio.StreamReader) -> None:
        try:
            await self._open.wait()
            await self._serve(link, reader)
        except OSError:
            pass  # one side was reset: reset the other
        finally:
            link.close(reset=True)

    async def _serve(self, link: _Link, reader: asyncio.StreamReader) -> None:
        async with asyncio.timeout(_CONNECT_TIMEOUT_S):
            far_reader, far_writer = await asyncio.open_connection(
                *self._target, limit=_CHUNK_BYTES
            )
        link.writers.append(far_writer)
        if self._next_cuts:
            link.meter.set_cut(self._next_cuts.popleft())
        self._links.append(link)
        try:
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(self._up(link, reader, far_writer))
                pumps.create_task(self._down(link, far_reader))
        except* OSError:
            pass
        finally:
            self._links.remove(link)
            self._ended.append(link.meter)

    async def _up(
        self, link: _Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while data := await reader.read(_CHUNK_BYTES):
            self.requests += link.requests.feed(data)
            if len(self.requests) > MAX_REQUESTS:
                link.close(reset=True)
                return
            writer.write(data)
            await writer.drain()
        # The client went away; a stream's client has nothing to say after its request.
        link.close(reset=True)

    async def _down(self, link: _Link, reader: asyncio.StreamReader) -> None:
        while data := await reader.read(_CHUNK_BYTES):
            place = link.meter.feed(data)
            if place is not None:
                await self._cut(link, data[:place])
                return
            link.client.write(data)
            await link.client.drain()
        link.client.close()
        await link.client.wait_closed()

    async def _cut(self, link: _Link, last: bytes) -> None:
        link.client.write(last)
        await link.client.drain()
        cut = link.meter.cut
        assert cut is not None
        if cut.hold:
            self.hold()
        self.cuts_made += 1
        if not cut.reset:
            link.client.close()
            await link.client.wait_closed()
        link.close(reset=True)
