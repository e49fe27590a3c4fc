"""Writing to one client's socket, and waiting until the client takes bytes (backpressure).

What is written, and in which order, is in `connection.py`.
"""

from __future__ import annotations

import asyncio
import math

import msgspec

from service.http.wire import Wire
from service.streaming.outgoing import Outgoing
from service.streaming.stream_frames import CloseReason
from service.telemetry.metrics import Metrics


class StreamTimes(msgspec.Struct, frozen=True):
    """The settings that a connection needs. Seconds, but for `retry_ms`."""

    retry_ms: int
    slow_client_s: float


class StreamClosing(Exception):
    """The stream is closing: only `stream.closing` may be written."""


class ClientGone(Exception):
    """The client disconnected."""


class ClientSlow(Exception):
    """The client took no byte for `slow_client_s`."""


class StreamWriter:
    """The writing half of a connection. Nothing is written once the stream is closing."""

    __slots__ = ("_closing", "_metrics", "_times", "_waiter", "wire", "written_at")

    def __init__(self, wire: Wire, metrics: Metrics, times: StreamTimes) -> None:
        self.wire = wire
        # Infinite until the first write: no heartbeat may come before the response's head.
        self.written_at = math.inf
        self._metrics = metrics
        self._times = times
        self._closing: CloseReason | None = None
        self._waiter: asyncio.Future[None] | None = None

    def wake(self) -> None:
        """Wake the task if it waits."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _write(self, frames: list[bytes]) -> None:
        self._send(Outgoing(frames))

    def _send(self, outgoing: Outgoing) -> None:
        if self._closing is not None:
            raise StreamClosing
        self.wire.write(outgoing.chunk)
        self.written_at = asyncio.get_running_loop().time()
        outgoing.count(self._metrics, 1)

    async def _write_when_taken(self, frames: list[bytes]) -> None:
        await self._until_taken()
        self._write(frames)

    async def _until_taken(self) -> None:
        """Wait until the client takes bytes.

        Raises:
            ClientGone: the client disconnected.
            ClientSlow: it took no byte for `slow_client_s`.
        """
        if self.wire.lost:
            raise ClientGone
        if not self.wire.blocked:
            return
        self._metrics.sse_backpressure.inc()
        loop = asyncio.get_running_loop()
        backlog = self.wire.backlog_bytes
        deadline = loop.time() + self._times.slow_client_s
        while self.wire.blocked:
            await self._sleep(min(1.0, self._times.slow_client_s / 4))
            if self.wire.lost:
                raise ClientGone
            if self.wire.backlog_bytes < backlog:
                backlog = self.wire.backlog_bytes
                deadline = loop.time() + self._times.slow_client_s
            elif loop.time() >= deadline:
                raise ClientSlow

    def _until_woken(self) -> asyncio.Future[None]:
        # Not a coroutine: nearly all connections wait here, and a frame each would cost memory.
        self._waiter = asyncio.get_running_loop().create_future()
        if self.wire.lost:
            self._waiter.set_result(None)
        return self._waiter

    async def _sleep(self, seconds: float) -> None:
        """Sleep until woken, at most `seconds`."""
        waiter = self._until_woken()
        if not waiter.done():
            await asyncio.wait([waiter], timeout=seconds)
        if self.wire.lost:
            raise ClientGone
