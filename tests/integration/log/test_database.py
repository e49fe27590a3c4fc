"""Connections to Postgres: kept, used again, and given up when they are of no more use."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from service.operate.embedded import PostgresServer
from streams.log.database import Database
from streams.model.errors import Contended, LogUnavailable, StreamsError
from tests.support.hanging import hanging
from tests.support.waiting import wait_until

_PID = "SELECT pg_backend_pid() AS pid"


@contextlib.asynccontextmanager
async def _opened(url: str, size: int) -> AsyncIterator[Database]:
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


async def test_a_connection_is_used_again(database_url: str) -> None:
    """One after the other: one connection."""
    async with _opened(database_url, 4) as database:
        assert len({await _pid(database) for _ in range(5)}) == 1


async def test_more_calls_than_connections(database_url: str) -> None:
    """Who waits for a connection gets one, also of those that are kept."""
    async with _opened(database_url, 2) as database:
        for _ in range(20):
            pids = await asyncio.gather(*(_pid(database) for _ in range(12)))
            assert len(set(pids)) <= 2
            async with database.transaction() as session:
                assert await session.fetch(_PID)


async def test_a_connection_that_ended_unused_is_not_used_again(
    database: Database, database_url: str
) -> None:
    """The server ended it, and the client has seen that."""
    async with _opened(database_url, 1) as ours:
        first = await _pid(ours)
        await database.fetch("SELECT pg_terminate_backend($1)", first)

        async def is_another() -> bool:
            with contextlib.suppress(LogUnavailable):
                return await _pid(ours) != first
            return False

        await wait_until(is_another)
        assert await _pid(ours) == await _pid(ours)


async def test_a_connection_that_nobody_used_for_long_is_not_used_again(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be gone without a word."""
    async with _opened(database_url, 2) as database:
        first = await _pid(database)
        monkeypatch.setattr("streams.log.connection_cache._MAX_IDLE_S", 0.0)
        assert await _pid(database) != first


async def test_a_connection_whose_statement_failed_is_used_again(database_url: str) -> None:
    """A refusal is no reason to connect anew, and leaves nothing behind."""
    async with _opened(database_url, 1) as database:
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
    """Its answer is not taken for the next call's."""
    async with _opened(database_url, 1) as ours:
        pid = await _pid(ours)
        task = asyncio.create_task(ours.fetch("SELECT 'late', pg_sleep(60)"))
        await _wait_until_waiting(database, pid)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        rows = await ours.fetch("SELECT 'next' AS what")
        assert rows[0]["what"] == "next"


@pytest.mark.parametrize(
    ("state", "kind"),
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
        ("57P01", LogUnavailable),  # an administrator at work
        ("XX000", LogUnavailable),  # a bug of the server's
        ("55P03", Contended),  # a lock was not to be had
        ("40P01", Contended),  # a deadlock
        ("40001", Contended),  # serialization
    ],
)
async def test_only_the_datas_own_errors_are_the_statements(
    database: Database, state: str, kind: type[StreamsError]
) -> None:
    """§4: what concerns the server, its schema or its roles passes: 503, and the polls go on."""
    with pytest.raises(StreamsError) as raised:
        await database.execute(f"DO $$ BEGIN RAISE SQLSTATE '{state}'; END $$")
    assert type(raised.value) is kind


@pytest.mark.parametrize("way", ["fetch", "transaction"])
async def test_a_server_that_hangs_is_not_waited_for_when_a_call_is_given_up(
    own_postgres: PostgresServer, way: str
) -> None:
    """asyncpg asks the server to cancel, and would wait for its word as long as for an answer."""
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
    # Another connection: the first one's answer may come yet.
    assert (await ours.fetch("SELECT 'next' AS what"))[0]["what"] == "next"
    await ours.close()


async def test_close_waits_for_what_is_in_use(database: Database, database_url: str) -> None:
    """A moment; then the connection is cut, and its caller is told."""
    ours = await Database.open(database_url, size=2, timeout_s=30)
    pid = await _pid(ours)
    task = asyncio.create_task(ours.fetch("SELECT pg_sleep(60)"))
    await _wait_until_waiting(database, pid)
    await ours.close()
    with pytest.raises(LogUnavailable):
        await task
