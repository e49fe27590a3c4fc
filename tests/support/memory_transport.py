"""A transport in memory: a test feeds bytes in exact pieces and reads what was written.

Without the kernel's buffers every run of an exchange is the same.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from service.http.protocol import StreamingProtocol


class MemoryTransport(asyncio.Transport):
    """The server's side of a connection; a test uses `feed` and `written` as the client's side."""

    def __init__(self, protocol: StreamingProtocol) -> None:
        super().__init__()
        self.written = bytearray()
        self._protocol = protocol
        self._pieces: deque[bytes] = deque()
        self._is_paused = False
        self._is_closing = False
        protocol.connection_made(self)

    @property
    def is_read_out(self) -> bool:
        """Whether the protocol has read all that was fed, or has paused or ended reading."""
        return not self._pieces or self._is_paused or self._is_closing

    def feed(self, data: bytes) -> None:
        """Deliver a piece to the protocol, at once or when it resumes reading."""
        self._pieces.append(data)
        self._deliver()

    def _deliver(self) -> None:
        while not self.is_read_out:
            self._protocol.data_received(self._pieces.popleft())

    def write(self, data: Any) -> None:
        if not self._is_closing:
            self.written += data

    def close(self) -> None:
        if not self._is_closing:
            self._is_closing = True
            asyncio.get_running_loop().call_soon(self._protocol.connection_lost, None)

    def abort(self) -> None:
        self.close()

    def is_closing(self) -> bool:
        return self._is_closing

    def pause_reading(self) -> None:
        self._is_paused = True

    def resume_reading(self) -> None:
        self._is_paused = False
        # In a later turn of the loop, as a real transport reads.
        asyncio.get_running_loop().call_soon(self._deliver)

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default
