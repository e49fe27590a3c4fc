"""Connections to Postgres, and the translation of asyncpg's errors into `StreamsError`s.

This file and `asyncpg_internals.py` are the only ones that import asyncpg. Statements are in `sql/`
and in the files that use a `Database`; the schema is applied in `migrations.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import asyncpg

from streams.log.asyncpg_internals import CLIENT_ERRORS, Connection
from streams.log.connection_cache import ConnectionCache
from streams.model.errors import Contended, LogUnavailable, StreamsError

# SQLSTATE classes of errors that the data of one statement causes. All other classes concern the
# server, its schema or its roles: every statement fails until an operator mends them.
_DATA_CLASSES = (
    "21",  # cardinality violation
    "22",  # data exception
    "23",  # integrity constraint violation
    "44",  # WITH CHECK OPTION violation
    "54",  # program limit exceeded: a value too large for an index
    "P0",  # raised by a function or a trigger
)
# Conflicts with another transaction: serialization, deadlock, lock timeout.
_CONTENTION = ("40001", "40P01", "55P03")

# No connection, or no answer in time.
_NO_ANSWER: tuple[type[Exception], ...] = (*CLIENT_ERRORS, OSError, TimeoutError)

# How long `Database.close` waits for the calls that are under way.
_CLOSE_S = 1.5


class Row(Protocol):
    """One row, by column name or position."""

    def __getitem__(self, key: str | int) -> Any: ...


class PoolUse(NamedTuple):
    """Connections to the server: at most `limit`, `size` are open, `in_use` run statements."""

    limit: int
    size: int
    in_use: int


class Session(Protocol):
    """What executes statements: the pool, or one connection in a transaction."""

    async def fetch(self, query: str, *args: object) -> Sequence[Row]: ...

    async def execute(self, query: str, *args: object) -> str: ...


class Database:
    """A bounded pool of connections. Every call has a timeout and raises only `StreamsError`s.

    Calls wait at most `timeout_s` for a connection and again for the answer.
    """

    def __init__(self, url: str, pool: asyncpg.Pool, timeout_s: float) -> None:
        self._url = url
        self._pool = pool
        # A session may stay read-only after the server accepts writes again, for example after a
        # failover or a change of the database's default.
        self._connections = ConnectionCache(
            pool, timeout_s, unusable_after=asyncpg.ReadOnlySQLTransactionError
        )

    @classmethod
    async def open(cls, url: str, *, size: int = 8, timeout_s: float = 10.0) -> Database:
        """Prepare a pool of at most `size` connections; each is made when it is first needed."""
        with _translated():
            pool = await asyncpg.create_pool(
                url,
                min_size=0,
                max_size=size,
                timeout=timeout_s,
                command_timeout=timeout_s,
                connection_class=Connection,
                server_settings={
                    "application_name": "seqstream",
                    "default_transaction_isolation": "read committed",
                    "timezone": "UTC",
                },
            )
        return cls(url, pool, timeout_s)

    async def another(self, *, size: int, timeout_s: float) -> Database:
        """Prepare a separate pool to the same database."""
        return await Database.open(self._url, size=size, timeout_s=timeout_s)

    async def close(self) -> None:
        """Close the connections; calls under way have `_CLOSE_S` to finish."""
        try:
            async with asyncio.timeout(_CLOSE_S):
                await self._connections.close()
                await self._pool.close()
        except TimeoutError:
            self._pool.terminate()

    def abandon(self) -> None:
        """Close all connections at once: calls under way raise `LogUnavailable`."""
        self._pool.terminate()

    async def fetch(self, query: str, *args: object) -> Sequence[Row]:
        """Run one statement and return its rows."""
        with _translated():
            async with self._connections.connection() as connection:
                rows: Sequence[Row] = await connection.fetch(query, *args)
                return rows

    async def execute(self, query: str, *args: object) -> str:
        """Run one statement and return its command tag, such as `DELETE 1`."""
        with _translated():
            async with self._connections.connection() as connection:
                tag: str = await connection.execute(query, *args)
                return tag

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[Session]:
        """Run one transaction on one connection: committed at the end, rolled back on an error.

        Cancelled or out of time, it is rolled back by the server once the connection is closed.
        """
        with _translated():
            async with self._connections.connection() as connection:
                transaction = connection.transaction()
                await transaction.start()
                try:
                    yield connection
                except (TimeoutError, asyncio.CancelledError):
                    # No ROLLBACK: a server that hangs would not answer it either.
                    connection.terminate()
                    raise
                except BaseException:
                    await transaction.rollback()
                    raise
                await transaction.commit()

    @property
    def pool_use(self) -> PoolUse:
        """How many connections there are, and how many of them are in use now."""
        size = self._pool.get_size()
        idle = self._pool.get_idle_size() + self._connections.idle
        return PoolUse(self._pool.get_max_size(), size, max(0, size - idle))

    async def server_version(self) -> str:
        """Return the server's version, such as `18.6`."""
        rows = await self.fetch("SHOW server_version")
        return str(rows[0][0]).split(" ")[0]


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except StreamsError:
        raise
    except asyncpg.PostgresError as error:
        raise _error_of(error) from error
    except _NO_ANSWER as error:
        raise LogUnavailable(f"Postgres: {type(error).__name__}") from error


def _error_of(error: asyncpg.PostgresError) -> StreamsError:
    state, name = error.sqlstate or "", type(error).__name__
    if state.startswith(_DATA_CLASSES):
        return StreamsError(f"Postgres refused a statement: {name}")
    if state in _CONTENTION:
        return Contended(f"Postgres: {name}")
    return LogUnavailable(f"Postgres: {name}")
