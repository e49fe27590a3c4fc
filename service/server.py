"""uvicorn with what streams need: access to the transport, and draining before shutdown.

The only file that imports uvicorn.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Generator
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service import __version__
from service.app import create_app
from service.settings import Settings
from service.wire import TRANSPORT_EXTENSION

FAULT_VARIABLE = "SEQSTREAM_FAULT"
# How long a client may take from its first byte (or from connecting) to the end of its headers.
HEADERS_TIMEOUT_S = 10.0
# The parser has no limits of its own, and uvicorn's pipeline none.
MAX_HEADER_BYTES = 64 * 1024
MAX_PIPELINED = 16
_KEEP_ALIVE_S = 75
_SHUTDOWN_TIMEOUT_S = 8
# How long after the streams' end a request may keep the process waiting: for the rest of its body,
# until its client takes the answer, and for a store that does not answer.
_BODY_GRACE_S = 1.5
_READ_GRACE_S = 3.0
_STORE_GRACE_S = 3.0
_LOOK_EVERY_S = 0.1
_CANCEL_EVERY_S = 0.5


class StreamingProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol, which also lends its transport to an open stream.

    It tells the stream (`on_change`) when the client is gone or takes bytes again, and it closes
    connections whose headers do not arrive in time.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lost = False
        self.on_change: Callable[[], None] | None = None
        self._headers_timer: asyncio.TimerHandle | None = None
        self._header_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self._headers_arrived()
        super().connection_lost(exc)
        if self.scope is not None:
            # The scope names this protocol: without this the pair waits for the cycle collector.
            self.scope.get("extensions", {}).clear()
        self.pipeline.clear()
        self._tell()
        self.on_change = None

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        # The timer runs just as long as a request's headers are expected. The same one afterwards:
        # none of these bytes ended them.
        expecting = self._headers_timer
        super().data_received(data)
        if (
            expecting is not None
            and self._headers_timer is expecting
            and not self.transport.is_closing()
        ):
            self._header_bytes += len(data)
            if self._header_bytes > MAX_HEADER_BYTES:
                self.send_400_response("The request's headers are too large.")

    def resume_writing(self) -> None:
        super().resume_writing()
        self._tell()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {TRANSPORT_EXTENSION: self}  # type: ignore[dict-item]
        if self._headers_timer is None:
            self._expect_headers()

    def on_headers_complete(self) -> None:
        self._headers_arrived()
        if len(self.pipeline) >= MAX_PIPELINED:
            # The parser hands this on as its own error, which uvicorn answers with 400.
            raise _TooManyPipelined
        super().on_headers_complete()

    def has_body_of(self, scope: object) -> bool:
        """Tell whether the whole body of this request is here already."""
        cycle = self.cycle
        return cycle is not None and cycle.scope is scope and not cycle.more_body

    def forget_request(self) -> None:
        """Drop what is kept of the request: a stream lives long and never looks at it again."""
        self.headers.clear()
        self.url = b""
        self.scope["query_string"] = b""
        self.scope["state"] = {}

    @property
    def waits_for_body(self) -> bool:
        """Whether a request has begun, and its body is not there."""
        cycle = self.cycle
        return cycle is not None and not cycle.response_complete and cycle.more_body

    @property
    def waits_for_reader(self) -> bool:
        """Whether the client has not taken what was written."""
        return self.flow.write_paused or self.transport.is_closing()

    def _tell(self) -> None:
        if self.on_change is not None:
            self.on_change()

    def _expect_headers(self) -> None:
        self._headers_timer = self.loop.call_later(HEADERS_TIMEOUT_S, self._headers_are_late)

    def _headers_arrived(self) -> None:
        if self._headers_timer is not None:
            self._headers_timer.cancel()
            self._headers_timer = None
        self._header_bytes = 0

    def _headers_are_late(self) -> None:
        self._headers_timer = None
        if not self.transport.is_closing():
            self.transport.close()


class _TooManyPipelined(Exception):
    """The client sends requests without waiting for answers."""


class Server(uvicorn.Server):
    """A server that drains the streams first, and ends with status 0 on SIGTERM.

    uvicorn waits for open responses before the application's own shutdown: without `drain` it
    would wait for streams that never end.
    """

    def __init__(self, config: uvicorn.Config, drain: Callable[[], Awaitable[None]]) -> None:
        super().__init__(config)
        self._drain = drain

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then spare what is there from the cycle collector.

        Requests make few cycles and streams live long: collecting as often as Python does by
        itself cost 5 % of the CPU under load, most of it on objects that never go.
        """
        await super().startup(sockets)
        gc.collect()
        gc.freeze()
        gc.set_threshold(10_000, 20, 50)

    async def shutdown(self, sockets: list[Any] | None = None) -> None:
        """Refuse new connections, let the streams say goodbye, then shut down as uvicorn does."""
        for server in self.servers:
            server.close()
        await self._drain()
        parting = asyncio.create_task(self._end_late_requests(), name="late requests")
        try:
            await super().shutdown(sockets)
        finally:
            parting.cancel()
            await asyncio.gather(parting, return_exceptions=True)

    async def _end_late_requests(self) -> None:
        """End requests that keep the end waiting: uvicorn would wait long, then write traces."""
        began_s = time.monotonic()
        cancel_at_s = began_s + _STORE_GRACE_S
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            waited_s = time.monotonic() - began_s
            for connection in list(self.server_state.connections):
                assert isinstance(connection, StreamingProtocol)
                if (connection.waits_for_body and waited_s >= _BODY_GRACE_S) or (
                    connection.waits_for_reader and waited_s >= _READ_GRACE_S
                ):
                    # The request sees a client that is gone, and ends as it always does then.
                    connection.transport.abort()
            if time.monotonic() >= cancel_at_s:
                # The application answers that the store is away. Not once: see `streams.ending`.
                cancel_at_s = time.monotonic() + _CANCEL_EVERY_S
                for task in list(self.server_state.tasks):
                    task.cancel()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Handle SIGINT and SIGTERM without raising them again at the end: the exit status is 0."""
        before = {
            number: signal.signal(number, self.handle_exit)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def config(app: Any, *, host: str, port: int) -> uvicorn.Config:
    """Return the configuration that the service runs with."""
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        loop="uvloop",
        http=StreamingProtocol,
        ws="none",
        lifespan="on",
        # Said, not guessed: the outermost application is a plain function that returns a coroutine.
        interface="asgi3",
        log_config=None,
        access_log=False,
        server_header=False,
        backlog=4096,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_SHUTDOWN_TIMEOUT_S,
        proxy_headers=False,
    )


def run(
    settings: Settings, *, host: str, port: int, listening: socket.socket | None = None
) -> bool:
    """Serve in this process until SIGTERM or SIGINT; tell whether it ever started.

    `listening` is a socket to serve on instead of host and port.
    """
    app, drain = create_app(settings, version=__version__, fault=os.environ.get(FAULT_VARIABLE))
    server = Server(config(app, host=host, port=port), drain)
    server.run(sockets=None if listening is None else [listening])
    return server.started
