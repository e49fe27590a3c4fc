"""A wire that records what is written, for tests of connections without a socket."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import msgspec

from service.http.wire import Chunk
from streams.model.sse import data_of


class RecordingWire:
    """A client that the test makes slow or disconnects: `blocked`, `lost`, `backlog_bytes`."""

    def __init__(self) -> None:
        self.blocked = False
        self.lost = False
        self.backlog_bytes = 0
        self.headers: list[tuple[bytes, bytes]] | None = None
        self.finished = False
        self.chunks: list[Chunk] = []
        self._callback: Callable[[], None] | None = None

    @property
    def data(self) -> bytes:
        """Everything written so far."""
        return b"".join(chunk.data for chunk in self.chunks)

    @property
    def blocks(self) -> list[bytes]:
        """The blocks that were written; the last one must be complete."""
        blocks = self.data.split(b"\n\n")
        assert blocks.pop() == b"", "a block without its end"
        return blocks

    def named(self, event: str) -> list[dict[str, object]]:
        """The data of the events of this name."""
        head = f"event: {event}\n".encode()
        return [
            msgspec.json.decode(data_of(block + b"\n\n"))
            for block in self.blocks
            if block.startswith(head)
        ]

    def seqs(self, event: str) -> list[object]:
        """The seqs of the messages that were written as this event."""
        return [data["seq"] for data in self.named(event)]

    def change(self, *, blocked: bool | None = None, lost: bool | None = None) -> None:
        """Let the client block, read again, or disconnect."""
        if blocked is not None:
            self.blocked = blocked
        if lost is not None:
            self.lost = lost
        if self._callback is not None:
            self._callback()

    def on_change(self, callback: object) -> None:
        """See `service.http.wire.Wire`."""
        self._callback = cast("Callable[[], None]", callback)

    async def start(self, headers: list[tuple[bytes, bytes]]) -> None:
        """See `service.http.wire.Wire`."""
        self.headers = headers

    def write(self, chunk: Chunk) -> None:
        """See `service.http.wire.Wire`."""
        assert not self.finished
        self.chunks.append(chunk)

    def offer(self, chunk: Chunk) -> bool:
        """See `service.http.wire.Wire`."""
        if self.blocked or self.lost:
            return False
        self.write(chunk)
        return True

    async def finish(self) -> None:
        """See `service.http.wire.Wire`."""
        self.finished = True
