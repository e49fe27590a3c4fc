"""A real HTTP server on loopback that speaks OpenAI's chat-completions protocol.

It answers with raw blocks of bytes, and can pause between two of them until the test continues it.
One that answers each question with a text of its own, at a rate, is in `paced_assistant.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import msgspec


def chunk(text: str) -> bytes:
    """Return one piece of an answer, as such endpoints send it."""
    return delta_chunk(content=text)


def delta_chunk(**delta: object) -> bytes:
    """Return a chunk with the fields of a delta, such as `reasoning_content` or `tool_calls`."""
    data = msgspec.json.encode({"choices": [{"index": 0, "delta": delta}]})
    return b"data: " + data + b"\n\n"


def call_chunk(
    index: int | None, call_id: str | None, name: str | None, arguments: object
) -> bytes:
    """Return a chunk with a fragment of a tool call, without the fields that are None."""
    function = {"name": name, "arguments": arguments}
    fragment = {"index": index, "id": call_id, "function": _given(function)}
    return delta_chunk(tool_calls=[_given(fragment)])


def _given(fields: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in fields.items() if value is not None}


DONE = b"data: [DONE]\n\n"


class CompletionsServer:
    """Answers every request as the last `answer_with` says, and records the requests."""

    def __init__(
        self, blocks: Sequence[bytes] = (), *, status: int = 200, pause_before: int | None = None
    ) -> None:
        self.answer_with(blocks, status=status, pause_before=pause_before)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
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

    def answer_with(
        self, blocks: Sequence[bytes], *, status: int = 200, pause_before: int | None = None
    ) -> None:
        """Answer with `blocks` from now on, and clear the recorded requests.

        The server pauses before block number `pause_before` until `go_on` is set.
        """
        self.requests: list[dict[str, Any]] = []
        self.headers: list[bytes] = []
        self.go_on = asyncio.Event()
        # Set when a client disconnects during the pause.
        self.disconnected = asyncio.Event()
        self._blocks = blocks
        self._status = status
        self._pause_before = pause_before

    @property
    def url(self) -> str:
        """The server's base URL."""
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            self.headers.append(head)
            length = next(
                int(line.split(b":")[1])
                for line in head.split(b"\r\n")
                if line.lower().startswith(b"content-length:")
            )
            request = msgspec.json.decode(await reader.readexactly(length))
            self.requests.append(request)
            writer.write(
                b"HTTP/1.1 %d X\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
                % self._status
            )
            await self._reply(request, reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            # The client disconnected, which some tests do on purpose.
            return
        finally:
            writer.close()

    async def _reply(
        self, request: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Send the response's body. Raises OSError when the client leaves."""
        blocks, pause_before, go_on = self._blocks, self._pause_before, self.go_on
        disconnected = self.disconnected
        for number, block in enumerate(blocks):
            if number == pause_before:
                await writer.drain()
                if await _closes_before(reader, go_on):
                    disconnected.set()
                    return
            writer.write(block)
            await writer.drain()


async def _closes_before(reader: asyncio.StreamReader, go_on: asyncio.Event) -> bool:
    """Wait until `go_on` is set or the client closes the connection; tell whether it did."""
    waiting = {asyncio.create_task(go_on.wait()), asyncio.create_task(reader.read())}
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
    return not go_on.is_set()
