"""Connections to Postgres: reused, and closed when they are no longer usable."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from service.operate.embedded import PostgresServer
from streams.log.database import Database
from streams.model.errors import Contended, LogUnavailable, StreamsError
from tests.support.hanging_postgres import hanging
from tests.support.waiting import wait_until

_PID = "SELECT pg_backend_pid() AS pid"


@contextlib.asynccontextmanager
async def _open(url: str, size: int) -> AsyncIterator[Database]:
    database = await Database.open(url, size=size, timeout_s=5)
    try:
        yield database
    finally:
        await database.close()


async def _pid(database: Database) -> int:
    pid: int = (await database.fetch(_PID))[0]["pid"]
    return pid


async def _fail_in_a_transaction(database: Database) -> None:
    async with database.transaction() as session:
        await session.execute("CREATE TABLE left_behind ()")
        await session.fetch("SELECT 1/0")


async def _wait_until_waiting(admin: Database, pid: int) -> None:
    async def sleeps() -> bool:
        rows = await admin.fetch("SELECT wait_event FROM pg_stat_activity WHERE pid = $1", pid)
        return bool(rows) and rows[0]["wait_event"] == "PgSleep"

    await wait_until(sleeps)


async def test_a_connection_is_reused(database_url: str) -> None:
    """Consecutive calls use one connection."""
    async with _open(database_url, 4) as database:
        assert len({await _pid(database) for _ in range(5)}) == 1


async def test_more_calls_than_connections_share_them(database_url: str) -> None:
    """A call that waits gets a connection, also one that the cache would keep."""
    async with _open(database_url, 2) as database:
        for _ in range(20):
            pids = await asyncio.gather(*(_pid(database) for _ in range(12)))
            assert len(set(pids)) <= 2
            async with database.transaction() as session:
                assert await session.fetch(_PID)


async def test_a_connection_that_the_server_closed_while_idle_is_not_reused(
    database: Database, database_url: str
) -> None:
    """After an error at most, calls use a new connection."""
    async with _open(database_url, 1) as ours:
        first = await _pid(ours)
        await database.fetch("SELECT pg_terminate_backend($1)", first)

        async def is_another() -> bool:
            with contextlib.suppress(LogUnavailable):
                return await _pid(ours) != first
            return False

        await wait_until(is_another)
        assert await _pid(ours) == await _pid(ours)


async def test_a_connection_that_was_idle_for_long_is_not_reused(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have been dropped without notice."""
    async with _open(database_url, 2) as database:
        first = await _pid(database)
        monkeypatch.setattr("streams.log.connection_cache._MAX_IDLE_S", 0.0)
        assert await _pid(database) != first


async def test_a_connection_whose_statement_failed_is_reused(database_url: str) -> None:
    """The failed transaction leaves nothing behind, and no new connection is made."""
    async with _open(database_url, 1) as database:
        first = await _pid(database)
        with pytest.raises(StreamsError):
            await database.fetch("SELECT 1/0")
        with pytest.raises(StreamsError):
            await _fail_in_a_transaction(database)
        assert await _pid(database) == first
        assert not await database.fetch("SELECT 1 FROM pg_class WHERE relname = 'left_behind'")


async def test_a_cancelled_call_leaves_a_usable_connection(
    database: Database, database_url: str
) -> None:
    """The next call does not get the cancelled call's answer."""
    async with _open(database_url, 1) as ours:
        pid = await _pid(ours)
        task = asyncio.create_task(ours.fetch("SELECT 'late', pg_sleep(60)"))
        await _wait_until_waiting(database, pid)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        rows = await ours.fetch("SELECT 'next' AS what")
        assert rows[0]["what"] == "next"


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("22012", StreamsError),  # division by zero
        ("23505", StreamsError),  # a unique key
        ("P0001", StreamsError),  # raised by a trigger
        ("42P01", LogUnavailable),  # a table is missing
        ("42883", LogUnavailable),  # a function is missing
        ("42501", LogUnavailable),  # a privilege is missing
        ("28P01", LogUnavailable),  # a password was changed
        ("3D000", LogUnavailable),  # the database is missing
        ("0A000", LogUnavailable),  # a cached plan that no longer fits
        ("25006", LogUnavailable),  # read-only
        ("57P01", LogUnavailable),  # an administrator's command
        ("XX000", LogUnavailable),  # a bug in the server
        ("55P03", Contended),  # a lock timeout
        ("40P01", Contended),  # a deadlock
        ("40001", Contended),  # serialization
    ],
)
async def test_only_errors_caused_by_the_data_are_permanent(
    database: Database, state: str, expected: type[StreamsError]
) -> None:
    """docs/protocol.md §4: errors of the server, its schema or its roles are 503: retry later."""
    with pytest.raises(StreamsError) as raised:
        await database.execute(f"DO $$ BEGIN RAISE SQLSTATE '{state}'; END $$")
    assert type(raised.value) is expected


@pytest.mark.parametrize("way", ["fetch", "transaction"])
async def test_a_cancelled_call_does_not_wait_for_a_server_that_hangs(
    own_postgres: PostgresServer, way: str
) -> None:
    """asyncpg asks the server to cancel and would wait for its answer up to the call's timeout."""
    ours = await Database.open(own_postgres.url, size=1, timeout_s=60)
    await ours.fetch("SELECT 1")
    begun, hangs = asyncio.Event(), asyncio.Event()

    async def call() -> None:
        if way == "fetch":
            begun.set()
            await hangs.wait()
            await ours.fetch("SELECT 1")
            return
        async with ours.transaction() as session:
            begun.set()
            await hangs.wait()
            await session.fetch("SELECT 1")

    task = asyncio.create_task(call())
    await begun.wait()
    with hanging(own_postgres):
        hangs.set()
        _, pending = await asyncio.wait([task], timeout=0.2)
        assert pending
        task.cancel()
        done, _ = await asyncio.wait([task], timeout=20)
        assert done, "the call waits for the server"
    # On another connection: the answer to the first call may still arrive.
    assert (await ours.fetch("SELECT 'next' AS what"))[0]["what"] == "next"
    await ours.close()


async def test_close_waits_a_moment_for_calls_under_way(
    database: Database, database_url: str
) -> None:
    """Then the connection is closed, and the call raises `LogUnavailable`."""
    ours = await Database.open(database_url, size=2, timeout_s=30)
    pid = await _pid(ours)
    task = asyncio.create_task(ours.fetch("SELECT pg_sleep(60)"))
    await _wait_until_waiting(database, pid)
    await ours.close()
    with pytest.raises(LogUnavailable):
        await task
