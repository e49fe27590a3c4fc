"""Postgres restarts, crashes, refuses connections, commits or statements, or waits for a lock.

During an outage posts get an error and are repeated. No acknowledged message is lost, no seq is
used twice, and open streams stay open.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import asyncpg

from tests.faults.process_logs import ProcessLogs
from tests.faults.scenario import Fault, Scene
from tests.faults.world import Plan
from tests.support.build_checker import StatusGuarantee

_OWN = Plan(own_postgres=True)
_FEW_CONNECTIONS = 40
_TABLES = ("messages", "projects", "project_members", "builds", "answers")


async def restarted(scene: Scene) -> None:
    """A clean shutdown, an outage, a start."""
    await asyncio.to_thread(scene.world.postgres.stop)
    await scene.last()
    await asyncio.to_thread(scene.world.postgres.start)
    await scene.last(0.5)


async def killed(scene: Scene) -> None:
    """SIGKILL to all of Postgres' processes, then a start with crash recovery."""
    await asyncio.to_thread(scene.world.postgres.kill)
    await scene.last()
    await asyncio.to_thread(scene.world.postgres.start)
    await scene.last(0.5)


async def connections_terminated(scene: Scene) -> None:
    """An administrator terminates all sessions, several times."""
    for _ in range(8):
        await _terminate_all(scene)
        await scene.last(1 / 8)


async def connection_limit(scene: Scene) -> None:
    """Other clients hold all connections when the services need new ones."""
    async with AsyncExitStack() as stack:
        connections: list[asyncpg.Connection] = []
        url = scene.world.postgres.database_url("postgres")

        async def take() -> None:
            connection = await asyncpg.connect(url, timeout=5)
            stack.push_async_callback(connection.close, timeout=5)
            connections.append(connection)

        await take()
        for _ in range(5):
            # The services' connections end, and others take them at once.
            await connections[0].execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1",
                scene.world.database,
            )
            try:
                for _ in range(_FEW_CONNECTIONS):
                    await take()
            except asyncpg.TooManyConnectionsError:
                pass
            await scene.last(1 / 5)
        scene.notes.append(f"{len(connections)} of {_FEW_CONNECTIONS} connections held by others")
    await scene.last(0.5)


async def commits_fail(scene: Scene) -> None:
    """A third of all commits fail at COMMIT, after every seq of the batch was assigned."""
    await scene.world.psql(
        """
        CREATE FUNCTION fault_fail_commit() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF random() < 0.3 THEN
                RAISE EXCEPTION 'this commit was chosen to fail' USING ERRCODE = '40001';
            END IF;
            RETURN NULL;
        END $$
        """
    )
    await scene.world.psql(
        "CREATE CONSTRAINT TRIGGER fault_fail_commit AFTER INSERT ON messages"
        " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION fault_fail_commit()"
    )
    await scene.last()
    await scene.world.psql("DROP TRIGGER fault_fail_commit ON messages")


async def read_only(scene: Scene) -> None:
    """Writes are refused, as after a failover to a read-only standby."""
    database = scene.world.database
    for value in ("on", "off"):
        # From another database: this one's own sessions would be read-only.
        await asyncio.to_thread(
            scene.world.postgres.psql,
            f'ALTER DATABASE "{database}" SET default_transaction_read_only = {value}',
        )
        await _terminate_all(scene)
        await scene.last(0.7)


async def tables_missing(scene: Scene) -> None:
    """Every table is missing, as during a restore; connections stay open."""
    async with _statements_fail(scene):
        # One at a time: with several locks, this session could be the victim of a deadlock.
        for table in _TABLES:
            await scene.world.psql(f"ALTER TABLE {table} RENAME TO {table}_away")
        await scene.last()
        for table in _TABLES:
            await scene.world.psql(f"ALTER TABLE {table}_away RENAME TO {table}")


async def rights_revoked(scene: Scene) -> None:
    """The service's role may neither read nor write messages."""
    async with _statements_fail(scene):
        await scene.world.psql(f'REVOKE ALL ON messages FROM "{scene.world.database}"')
        await scene.last()
        await scene.world.psql(f'GRANT ALL ON messages TO "{scene.world.database}"')


@asynccontextmanager
async def _statements_fail(scene: Scene) -> AsyncIterator[None]:
    """Check that failed posts get 503 and not 500, no stream ends, and no process ends."""
    logs = ProcessLogs(scene.world)
    answers_before = scene.answers()
    ends_before = [len(client.ends) for client in scene.load.steady]
    yield
    await scene.load.wait_acknowledged(20)
    await scene.all_delivered()
    answers = scene.answers() - answers_before
    assert answers["503"], f"no post failed during the fault: {answers}"
    assert not answers["500"], f"posts were answered with 500: {answers}"
    ends = [len(client.ends) for client in scene.load.steady]
    assert ends == ends_before, "streams ended"
    assert all(service.is_running() for service in scene.world.services), "a process ended"
    logs.check_bounded()


async def row_locked(scene: Scene) -> None:
    """Another session holds the row lock that every append needs."""
    connection = await asyncpg.connect(
        scene.world.postgres.database_url(scene.world.database), timeout=5
    )
    try:
        async with connection.transaction():
            await connection.execute("SELECT * FROM projects FOR UPDATE")
            await scene.last()
    finally:
        await connection.close(timeout=5)


async def _terminate_all(scene: Scene) -> None:
    await asyncio.to_thread(
        scene.world.postgres.psql,
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
        f" WHERE datname = '{scene.world.database}' AND pid <> pg_backend_pid()",
    )


FAULTS = [
    Fault("postgres restarted", restarted, _OWN, statuses=StatusGuarantee.ALL),
    Fault("postgres killed", killed, _OWN, statuses=StatusGuarantee.ALL),
    Fault("postgres sessions terminated", connections_terminated, statuses=StatusGuarantee.ALL),
    Fault(
        "postgres at its connection limit",
        connection_limit,
        Plan(own_postgres=True, postgres_settings={"max_connections": str(_FEW_CONNECTIONS)}),
        statuses=StatusGuarantee.ALL,
    ),
    Fault("postgres commits fail", commits_fail, statuses=StatusGuarantee.ALL),
    Fault("postgres read-only", read_only, statuses=StatusGuarantee.ALL),
    Fault("postgres tables missing", tables_missing, statuses=StatusGuarantee.ALL),
    Fault(
        "postgres rights revoked", rights_revoked, Plan(own_role=True), statuses=StatusGuarantee.ALL
    ),
    Fault("postgres row locked by another", row_locked, length_s=8.0, statuses=StatusGuarantee.ALL),
]
