"""uvicorn's server with what the service adds: drain before shutdown, sweep, collector's settings.

And the configuration it runs with. What one connection does is in `protocol.py`; uvicorn's
internals that both rely on are checked in `uvicorn_internals.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Generator
from typing import Any

import uvicorn

from service.background import running
from service.http.deadlines import KEEP_ALIVE_S, SWEEP_EVERY_S, sweep
from service.http.fast_path import FastPath
from service.http.intake import Intake
from service.http.protocol import StreamingProtocol

_SHUTDOWN_TIMEOUT_S = 8
# How long a request may delay the shutdown, counted from the end of the drain:
# while the rest of its body is missing,
_BODY_GRACE_S = 1.5
# while its client does not take the response,
_READ_GRACE_S = 3.0
# and while a store does not answer.
_STORE_GRACE_S = 2.0
_CHECK_EVERY_S = 0.1
_CANCEL_EVERY_S = 0.5


class Server(uvicorn.Server):
    """A server that drains the streams before it shuts down, and exits with 0 on SIGTERM.

    uvicorn waits for open responses before the application's own shutdown: without `drain` it
    would wait for streams that do not end by themselves.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        drain: Callable[[], Awaitable[None]],
        intake: Intake,
        ended: Callable[[str], None],
    ) -> None:
        """`intake` is the one of `config`'s connections; `ended` is passed to `running`."""
        super().__init__(config)
        self._drain = drain
        self._intake = intake
        self._ended = ended

    async def main_loop(self) -> None:
        """Serve until a signal ends it, with the sweep of the connections."""
        async with running({"sweep of the connections": self._sweep()}, self._ended):
            await super().main_loop()

    async def _sweep(self) -> None:
        """Check all connections each second. Runs until cancelled."""
        connections: Any = self.server_state.connections
        while True:
            await asyncio.sleep(SWEEP_EVERY_S)
            now_s = self._intake.clock()
            sweep(connections, now_s)
            self._intake.report(now_s)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then exempt the objects that exist from cycle collection, and collect less often.

        Requests make few cycles and streams live long. Python's own thresholds cost 5 % of the CPU
        under load, most of it on objects that live as long as the process.
        """
        await super().startup(sockets)
        gc.collect()
        gc.freeze()
        gc.set_threshold(10_000, 20, 50)

    async def shutdown(self, sockets: list[Any] | None = None) -> None:
        """Refuse new connections, drain the streams, then shut down as uvicorn does."""
        for server in self.servers:
            server.close()
        await self._drain()
        ending = asyncio.create_task(self._end_late_requests(), name="late requests")
        try:
            await super().shutdown(sockets)
        finally:
            ending.cancel()
            await asyncio.gather(ending, return_exceptions=True)

    async def _end_late_requests(self) -> None:
        """End requests that delay the shutdown. Runs until cancelled.

        uvicorn would wait until its timeout, then cancel them and log stack traces.
        """
        began_s = time.monotonic()
        cancel_at_s = began_s + _STORE_GRACE_S
        while True:
            await asyncio.sleep(_CHECK_EVERY_S)
            waited_s = time.monotonic() - began_s
            for connection in list(self.server_state.connections):
                assert isinstance(connection, StreamingProtocol)
                if (connection.waits_for_body and waited_s >= _BODY_GRACE_S) or (
                    connection.waits_for_reader and waited_s >= _READ_GRACE_S
                ):
                    # The request ends as with any client that is gone.
                    connection.transport.abort()
            if time.monotonic() >= cancel_at_s:
                # The application answers that the store is not available. Repeated, because a
                # task can miss a cancellation: see `streams/runtime/owned_tasks.py`.
                cancel_at_s = time.monotonic() + _CANCEL_EVERY_S
                for task in list(self.server_state.tasks):
                    task.cancel()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Handle SIGINT and SIGTERM without raising them again, so that the exit status is 0."""
        before = {
            number: signal.signal(number, self.handle_exit)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def config(
    app: Any,
    *,
    host: str,
    port: int,
    fast_path: FastPath | None = None,
    intake: Intake | None = None,
) -> uvicorn.Config:
    """Return the configuration that the service runs with; the connections share `intake`."""
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        loop="uvloop",
        http=functools.partial(StreamingProtocol, fast_path, intake),  # type: ignore[arg-type]
        ws="none",
        lifespan="on",
        # uvicorn would guess wrong: the application is a plain function that returns a coroutine.
        interface="asgi3",
        log_config=None,
        access_log=False,
        server_header=False,
        backlog=4096,
        timeout_keep_alive=int(KEEP_ALIVE_S),
        timeout_graceful_shutdown=_SHUTDOWN_TIMEOUT_S,
        proxy_headers=False,
    )
