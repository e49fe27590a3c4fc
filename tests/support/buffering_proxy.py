"""An HTTP proxy that holds streams back, as a corporate or misconfigured one does.

It passes the head of a stream's response on, and none of its body. Everything else goes through
unchanged. Each connection carries one request.
"""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType
from typing import Self

_HEAD_BYTES = 64 * 1024
_CHUNK_BYTES = 64 * 1024


class BufferingProxy:
    """Listens on a loopback port and forwards to `target_port`; `is_buffering` may be changed."""

    def __init__(self, target_port: int) -> None:
        self.port = 0
        self.is_buffering = True
        self.held_streams = 0
        self._target_port = target_port
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=_HEAD_BYTES)
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

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far: asyncio.StreamWriter | None = None
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                head = await reader.readuntil(b"\r\n\r\n")
                answers, far = await asyncio.open_connection(
                    "127.0.0.1", self._target_port, limit=_HEAD_BYTES
                )
                line, _, rest = head.partition(b"\r\n")
                fields = [
                    field for field in rest.split(b"\r\n")
                    if not field.lower().startswith(b"connection:")
                ]  # fmt: skip
                far.write(b"\r\n".join([line, b"Connection: close", *fields]))
                is_held = self.is_buffering and b"/chat/stream?" in line
                await self._exchange(reader, writer, answers, far, is_held=is_held)
        finally:
            writer.close()
            if far is not None:
                far.close()

    async def _exchange(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        answers: asyncio.StreamReader,
        far: asyncio.StreamWriter,
        *,
        is_held: bool,
    ) -> None:
        sending = asyncio.create_task(_pump(reader, far))
        try:
            writer.write(await answers.readuntil(b"\r\n\r\n"))
            if is_held:
                self.held_streams += 1
                await sending  # until the client gives up; what the service writes stays unread
            else:
                await _pump(answers, writer)
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_CHUNK_BYTES):
        writer.write(data)
        await writer.drain()
