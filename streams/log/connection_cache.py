"""Connections that were acquired from the pool and are reused without a return to it.

The pool starts a task for each release, which costs more than many a statement. Errors are
translated in `database.py`.
"""

from __future__ import annotations

import time
from typing import Any, Protocol

from streams.log.asyncpg_internals import is_open, release_failed

# As many connections as commit and read at once.
_MAX_IDLE = 4
# A firewall may have dropped a connection that was idle for longer. The pool has the same limit.
_MAX_IDLE_S = 300.0


class Pool(Protocol):
    """The part of asyncpg's pool that is used here."""

    async def acquire(self, *, timeout: float) -> Any: ...

    async def release(self, connection: Any) -> None: ...


class ConnectionCache:
    """Keeps idle connections out of the pool for reuse.

    The pool gets back connections whose statement failed, those above `_MAX_IDLE`, and every
    connection that is released while another call waits for one.
    """

    def __init__(
        self, pool: Pool, timeout_s: float, *, unusable_after: type[BaseException]
    ) -> None:
        """After an error of the type `unusable_after` a connection is closed."""
        self.unusable_after = unusable_after
        self._pool = pool
        self._timeout_s = timeout_s
        # Each connection with the monotonic time since when it is idle.
        self._idle: list[tuple[Any, float]] = []
        self._waiting = 0
        self._closed = False

    @property
    def idle(self) -> int:
        """How many connections are kept here for reuse."""
        return len(self._idle)

    def connection(self) -> BorrowedConnection:
        """Return a connection for the length of an `async with`."""
        return BorrowedConnection(self)

    async def take(self) -> Any:
        """Return an idle connection, else acquire one; `TimeoutError` when none becomes free."""
        while self._idle:
            connection, since_s = self._idle.pop()
            if is_open(connection):
                if time.monotonic() - since_s < _MAX_IDLE_S:
                    return connection
                connection.terminate()
            await self._pool.release(connection)
        self._waiting += 1
        try:
            return await self._pool.acquire(timeout=self._timeout_s)
        finally:
            self._waiting -= 1

    async def give_back(self, connection: Any, *, failed: bool) -> None:
        """Keep a connection for reuse or release it to the pool."""
        if failed:
            await release_failed(self._pool, connection)
        elif self._waiting or self._closed or len(self._idle) >= _MAX_IDLE:
            await self._pool.release(connection)
        else:
            self._idle.append((connection, time.monotonic()))

    async def close(self) -> None:
        """Release the idle connections; those in use are released when they are given back."""
        self._closed = True
        while self._idle:
            connection, _ = self._idle.pop()
            await self._pool.release(connection)


class BorrowedConnection:
    """One connection for the length of an `async with`."""

    __slots__ = ("_cache", "_connection")

    def __init__(self, cache: ConnectionCache) -> None:
        self._cache = cache
        self._connection: Any = None

    async def __aenter__(self) -> Any:
        self._connection = await self._cache.take()
        return self._connection

    async def __aexit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, self._cache.unusable_after):
            self._connection.terminate()
        await self._cache.give_back(self._connection, failed=error is not None)
