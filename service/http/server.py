"""uvicorn's server with what streams need: draining before shutdown.

With `protocol.py` the only file that imports uvicorn.
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
from service.http.intake import Intake
from service.http.protocol import StreamingProtocol
from service.http.short_way import ShortWay

_SHUTDOWN_TIMEOUT_S = 8
# How long after the streams' end a request may keep the process waiting: for the rest of its body,
# until its client takes the answer, and for a store that does not answer.
_BODY_GRACE_S = 1.5
_READ_GRACE_S = 3.0
_STORE_GRACE_S = 2.0
_LOOK_EVERY_S = 0.1
_CANCEL_EVERY_S = 0.5


class Server(uvicorn.Server):
    """A server that drains the streams first, and ends with status 0 on SIGTERM.

    uvicorn waits for open responses before the application's own shutdown: without `drain` it
    would wait for streams that never end.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        drain: Callable[[], Awaitable[None]],
        intake: Intake,
        ended: Callable[[str], None],
    ) -> None:
        """`intake` is the one that the connections of `config` use; for `ended` see `running`."""
        super().__init__(config)
        self._drain = drain
        self._intake = intake
        self._ended = ended

    async def main_loop(self) -> None:
        """Serve until told to end, and look after the connections all the while."""
        async with running({"sweep of the connections": self._sweep()}, self._ended):
            await super().main_loop()

    async def _sweep(self) -> None:
        """Look at all connections each second, for ever."""
        connections: Any = self.server_state.connections
        while True:
            await asyncio.sleep(SWEEP_EVERY_S)
            now_s = self._intake.clock()
            sweep(connections, now_s)
            self._intake.report(now_s)

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
                # The application answers that the store is away. Not once: see
                # `streams.runtime.owned_tasks`.
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


def config(
    app: Any,
    *,
    host: str,
    port: int,
    short_way: ShortWay | None = None,
    intake: Intake | None = None,
) -> uvicorn.Config:
    """Return the configuration that the service runs with."""
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        loop="uvloop",
        http=functools.partial(StreamingProtocol, short_way, intake),  # type: ignore[arg-type]
        ws="none",
        lifespan="on",
        # Said, not guessed: the outermost application is a plain function that returns a coroutine.
        interface="asgi3",
        log_config=None,
        access_log=False,
        server_header=False,
        backlog=4096,
        timeout_keep_alive=int(KEEP_ALIVE_S),
        timeout_graceful_shutdown=_SHUTDOWN_TIMEOUT_S,
        proxy_headers=False,
    )
