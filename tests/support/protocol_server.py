"""The service's HTTP protocol on a loopback port, without the service: applications of tests."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, cast

from uvicorn.server import ServerState

from service.http.deadlines import sweep
from service.http.intake import Intake
from service.http.protocol import StreamingProtocol
from service.http.server import config
from service.http.short_way import ShortWay
from tests.support.waiting import wait_until


class Clock:
    """Monotonic seconds that a test sets."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class ProtocolServer:
    """A listening server; its deadlines are looked at when a test passes time."""

    def __init__(self, port: int, state: ServerState, intake: Intake, clock: Clock) -> None:
        self.port = port
        self.state = state
        self.intake = intake
        self.clock = clock

    @property
    def connection(self) -> StreamingProtocol:
        """The only connection."""
        (connection,) = self.state.connections
        return cast("StreamingProtocol", connection)

    def pass_time(self, seconds: float) -> None:
        """Let the clock go on second by second, and look at all connections each time."""
        for _ in range(round(seconds)):
            self.clock.now_s += 1.0
            sweep(cast("Any", self.state.connections), self.clock.now_s)

    async def wait_gone(self) -> None:
        """Wait until no connection is left."""
        await wait_until(lambda: not self.state.connections, what="the end of the connections")


@contextlib.asynccontextmanager
async def protocol_server(
    app: Any, *, short_way: ShortWay | None = None, limit_bytes: int = 0
) -> AsyncIterator[ProtocolServer]:
    """Serve an ASGI application; `limit_bytes` bounds what is pending (0: no bound)."""
    clock = Clock()
    intake, state = Intake(limit_bytes=limit_bytes, clock=clock), ServerState()
    settings = config(app, host="127.0.0.1", port=0)
    settings.load()
    server = await asyncio.get_running_loop().create_server(
        lambda: StreamingProtocol(
            short_way, intake, config=settings, server_state=state, app_state={}
        ),
        "127.0.0.1",
        0,
    )
    try:
        yield ProtocolServer(server.sockets[0].getsockname()[1], state, intake, clock)
    finally:
        server.close()
        for connection in list(state.connections):
            cast("StreamingProtocol", connection).transport.abort()
        await asyncio.gather(*state.tasks, return_exceptions=True)
