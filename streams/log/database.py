"""Connections to Postgres, migrations, and the translation of the driver's errors.

The only file that imports asyncpg. What is asked of Postgres stands in `sql/` and in the files
that use a `Database` (`log.py`, `projects.py`, `builds.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, Protocol

import asyncpg

from streams.log import sql
from streams.log.sql import statement
from streams.model.errors import Contended, LogUnavailable, StreamsError

_log = logging.getLogger(__name__)

# SQLSTATE classes that the data of one statement causes. Everything else is the matter of the
# server, its schema or its roles: it concerns every statement, and passes when it is put right.
_DATA_CLASSES = (
    "21",  # cardinality violation
    "22",  # data exception
    "23",  # integrity constraint violation
    "44",  # WITH CHECK OPTION violation
    "54",  # program limit exceeded: a value too large for an index
    "P0",  # raised by a function or a trigger
)
# Another transaction was in the way: serialization, deadlock, a lock not to be had in time.
_CONTENTION = ("40001", "40P01", "55P03")

# How long the end of a failed call waits for the server to hear that it is to stop. One that hangs
# hears nothing: asyncpg's own cancel would wait as long as the call may take.
_CANCEL_S = 0.25

# Connections that are kept out of the pool between two calls: as many as commit and read at once.
_MOST_KEPT = 4
# One that nobody used for so long may be gone without a word (the pool's own rule for its idle).
_KEPT_S = 300.0

# Held while migrating, so that processes that start together do not migrate together.
_MIGRATION_LOCK = 0x5E95_74EA


class Row(Protocol):
    """One row, by column name or position."""

    def __getitem__(self, key: str | int) -> Any: ...


class Session(Protocol):
    """What statements are sent to: the pool, or one connection in a transaction."""

    async def fetch(self, query: str, *args: object) -> Sequence[Row]: ...

    async def execute(self, query: str, *args: object) -> str: ...


class _Connection(asyncpg.Connection):  # type: ignore[misc]
    def get_reset_query(self) -> str:
        # Nothing here changes a session's state, and a reset is a round trip at each release.
        return ""


class Database:
    """A bounded pool of connections. Every call has a timeout and raises only `StreamsError`s.

    Calls wait at most `timeout_s` for a connection and again for the answer.
    """

    def __init__(self, url: str, pool: asyncpg.Pool, timeout_s: float) -> None:
        self._url = url
        self._pool = pool
        self._lent = _Lent(pool, timeout_s)

    @classmethod
    async def open(cls, url: str, *, size: int = 8, timeout_s: float = 10.0) -> Database:
        """Prepare a pool of at most `size` connections; they are made when first needed."""
        with _translated():
            pool = await asyncpg.create_pool(
                url,
                min_size=0,
                max_size=size,
                timeout=timeout_s,
                command_timeout=timeout_s,
                connection_class=_Connection,
                server_settings={
                    "application_name": "seqstream",
                    "default_transaction_isolation": "read committed",
                    "timezone": "UTC",
                },
            )
        return cls(url, pool, timeout_s)

    async def another(self, *, size: int, timeout_s: float) -> Database:
        """Prepare a pool of its own to the same database."""
        return await Database.open(self._url, size=size, timeout_s=timeout_s)

    async def close(self) -> None:
        """Close the connections, waiting a moment for those in use."""
        try:
            async with asyncio.timeout(1.5):
                await self._lent.close()
                await self._pool.close()
        except TimeoutError:
            self._pool.terminate()

    def abandon(self) -> None:
        """Cut all connections: who waits for an answer gets `LogUnavailable`."""
        self._pool.terminate()

    async def fetch(self, query: str, *args: object) -> Sequence[Row]:
        """Run one statement and return its rows."""
        with _translated():
            async with self._lent.connection() as connection:
                rows: Sequence[Row] = await connection.fetch(query, *args)
                return rows

    async def execute(self, query: str, *args: object) -> str:
        """Run one statement and return its command tag, such as `DELETE 1`."""
        with _translated():
            async with self._lent.connection() as connection:
                tag: str = await connection.execute(query, *args)
                return tag

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[Session]:
        """One transaction on one connection: committed at the end, rolled back on an error."""
        with _translated():
            async with self._lent.connection() as connection:
                transaction = connection.transaction()
                await transaction.start()
                try:
                    yield connection
                except (TimeoutError, asyncio.CancelledError):
                    # The server may hang: asked to roll back, it would be waited for again. It
                    # rolls back by itself when the connection ends.
                    connection.terminate()
                    raise
                except BaseException:
                    await transaction.rollback()
                    raise
                await transaction.commit()

    async def migrate(self) -> list[str]:
        """Bring the schema up to date and return the names of what was applied.

        Plain numbered SQL and a table of what ran: there is no model to compare a schema with
        (nothing here maps rows to objects), and server-side functions are written in SQL anyway.
        Safe to call from several processes at once.
        """
        applied = []
        async with self._migrating() as session:
            await session.execute(
                "CREATE TABLE IF NOT EXISTS schema_migrations"
                " (number int PRIMARY KEY, name text NOT NULL, at timestamptz DEFAULT now())"
            )
            # Whether code that does not know the migration must not run with it. Looked for first:
            # the statement locks out everyone who reads the table, whatever it then has to do. So
            # it has a transaction of its own, too.
            if not await session.fetch(statement("schema_has_breaking")):
                await session.execute(
                    "ALTER TABLE schema_migrations"
                    " ADD COLUMN breaking boolean NOT NULL DEFAULT false"
                )
        async with self._migrating() as session:
            rows = await session.fetch("SELECT number FROM schema_migrations")
            done = {row["number"] for row in rows}
            for number, name, text in sql.migrations():
                if number not in done:
                    await session.execute(text)
                    await session.execute(
                        "INSERT INTO schema_migrations (number, name, breaking)"
                        " VALUES ($1, $2, $3)",
                        number, name, sql.is_breaking(text),
                    )  # fmt: skip
                    applied.append(name)
        return applied

    @contextlib.asynccontextmanager
    async def _migrating(self) -> AsyncIterator[Session]:
        async with self.transaction() as session:
            await session.execute("SELECT pg_advisory_xact_lock($1)", _MIGRATION_LOCK)
            yield session

    async def server_version(self) -> str:
        """Return the server's version, such as `18.6`."""
        rows = await self.fetch("SHOW server_version")
        return str(rows[0][0]).split(" ")[0]


class _Lent:
    """Connections that the pool has lent for good: the pool makes a task of each return.

    They are used again at once; the pool gets back those that failed, those above `_MOST_KEPT`,
    and all that others wait for.
    """

    def __init__(self, pool: asyncpg.Pool, timeout_s: float) -> None:
        self._pool = pool
        self._timeout_s = timeout_s
        # With the time since when each is free.
        self._free: list[tuple[Any, float]] = []
        self._waiting = 0
        self._closed = False

    def connection(self) -> _Borrowed:
        """Return a connection for an `async with`; others wait for it meanwhile."""
        return _Borrowed(self)

    async def take(self) -> Any:
        while self._free:
            connection, since_s = self._free.pop()
            if _is_open(connection):
                if time.monotonic() - since_s < _KEPT_S:
                    return connection
                connection.terminate()
            await self._pool.release(connection)
        self._waiting += 1
        try:
            return await self._pool.acquire(timeout=self._timeout_s)
        finally:
            self._waiting -= 1

    async def give_back(self, connection: Any, *, failed: bool) -> None:
        if failed:
            # The pool ends a connection whose statement cannot be stopped in time.
            with contextlib.suppress(TimeoutError):
                await self._pool.release(connection, timeout=_CANCEL_S)
        elif self._waiting or self._closed or len(self._free) >= _MOST_KEPT:
            await self._pool.release(connection)
        else:
            self._free.append((connection, time.monotonic()))

    async def close(self) -> None:
        """Return all that is not in use; what is, goes back when it is given back."""
        self._closed = True
        while self._free:
            connection, _ = self._free.pop()
            await self._pool.release(connection)


def _is_open(connection: Any) -> bool:
    try:
        return not connection.is_closed()
    except asyncpg.InterfaceError:
        # It ended while nobody used it, and the pool has taken it back.
        return False


class _Borrowed:
    """One connection for the length of an `async with`."""

    __slots__ = ("_connection", "_lent")

    def __init__(self, lent: _Lent) -> None:
        self._lent = lent
        self._connection: Any = None

    async def __aenter__(self) -> Any:
        self._connection = await self._lent.take()
        return self._connection

    async def __aexit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, asyncpg.ReadOnlySQLTransactionError):
            # The session may stay so for its life, when others may long write, as after a switch
            # of servers or of a database's default. The next call connects anew.
            self._connection.terminate()
        await self._lent.give_back(self._connection, failed=error is not None)


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except StreamsError:
        raise
    except asyncpg.PostgresError as error:
        raise _error_of(error) from error
    except (asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError) as error:
        raise LogUnavailable(f"Postgres: {type(error).__name__}") from error


def _error_of(error: asyncpg.PostgresError) -> StreamsError:
    state, name = error.sqlstate or "", type(error).__name__
    if state.startswith(_DATA_CLASSES):
        return StreamsError(f"Postgres refused a statement: {name}")
    if state in _CONTENTION:
        return Contended(f"Postgres: {name}")
    return LogUnavailable(f"Postgres: {name}")
