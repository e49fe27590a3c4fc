"""docs/protocol.md §7: `migrate` updates the schema, and the published names stay."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import count

import pytest

from service.operate.embedded import PostgresServer
from streams.log import sql
from streams.log.database import Database
from streams.log.log import Log, Unit
from streams.log.migrations import migrate
from streams.log.schema import Applied, Schema, compare, read_schema
from streams.model.events import NewMessage, prepare

_numbers = count(1)


@pytest.fixture
async def empty_database(postgres: PostgresServer) -> AsyncIterator[Database]:
    """A database without a schema."""
    name = f"empty_{next(_numbers)}"
    database = await Database.open(postgres.create_database(name), size=4)
    yield database
    await database.close()
    postgres.psql(f'DROP DATABASE "{name}" WITH (FORCE)')


def _all() -> list[str]:
    return [name for _, name, _ in sql.migrations()]


async def test_a_fresh_database_lacks_every_migration(empty_database: Database) -> None:
    """`doctor` and `serve` report that `migrate` was not run."""
    assert await read_schema(empty_database) == Schema(
        problem=f"run seqstream migrate ({', '.join(_all())} missing)"
    )


async def test_migrations_are_applied_in_order_and_once(empty_database: Database) -> None:
    """A second `migrate` applies nothing."""
    assert await migrate(empty_database) == _all()
    assert await migrate(empty_database) == []
    assert await read_schema(empty_database) == Schema()


async def test_processes_that_start_together_migrate_one_after_the_other(
    empty_database: Database,
) -> None:
    """Each migration is applied once."""
    applied = await asyncio.gather(*(migrate(empty_database) for _ in range(4)))
    assert sorted(name for names in applied for name in names) == sorted(_all())


async def test_a_database_is_migrated_while_it_is_used(empty_database: Database) -> None:
    """Rolling upgrade: migrations after the second neither wait for open appends nor block them."""
    first_two = sql.migrations()[:2]
    async with empty_database.transaction() as session:
        await session.execute(
            "CREATE TABLE schema_migrations"
            " (number int PRIMARY KEY, name text NOT NULL, at timestamptz DEFAULT now())"
        )
        for number, name, text in first_two:
            await session.execute(text)
            await session.execute(
                "INSERT INTO schema_migrations (number, name) VALUES ($1, $2)", number, name
            )
        await session.execute("INSERT INTO projects (id, owner_id, name) VALUES ('p', 'o', 'x')")
    unit = Unit("p", (prepare(NewMessage(user_id="o", text="before")),))
    await Log(empty_database).append([unit])
    async with empty_database.transaction() as session:
        await Log(empty_database).append([unit], session)
        applied = asyncio.create_task(migrate(empty_database))
        # Finishes while the transaction of an append is open.
        assert "0003_append_lock_timeout.sql" in await applied
    unit = Unit("p", (prepare(NewMessage(user_id="o", text="after")),))
    await Log(empty_database).append([unit])
    assert [message.seq for message in await Log(empty_database).read("p")] == [1, 2, 3]


async def test_a_missing_table_is_reported(empty_database: Database) -> None:
    """docs/protocol.md §4: a restore may lack a table although all migrations are recorded."""
    await migrate(empty_database)
    await empty_database.execute("ALTER TABLE messages RENAME TO away")
    schema = await read_schema(empty_database)
    assert schema.problem == "tables missing, or not readable by this role: messages"


@pytest.mark.parametrize(("breaking", "is_problem"), [(False, False), (True, True)])
def test_a_newer_schema_is_a_problem_when_it_is_breaking(breaking: bool, is_problem: bool) -> None:
    """docs/protocol.md §4: otherwise every rolling upgrade would be an outage."""
    applied = [Applied(number, name, False) for number, name, _ in sql.migrations()]
    schema = compare([*applied, Applied(9999, "9999_x.sql", breaking)])
    assert (schema.problem is not None, schema.note is not None) == (is_problem, not is_problem)


def test_migrations_are_numbered_without_a_gap() -> None:
    """Two files must not have the same number."""
    numbers = [number for number, _, _ in sql.migrations()]
    assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.parametrize(
    ("table", "columns"),
    [
        ("projects", {"id", "owner_id", "last_seq"}),
        ("project_members", {"project_id", "user_id"}),
        ("messages", {"project_id", "seq", "id", "client_msg_id", "user_id"}),
    ],
)
async def test_operators_find_these_tables_and_columns(
    database: Database, table: str, columns: set[str]
) -> None:
    """docs/protocol.md §7: operators may read these; the names stay."""
    rows = await database.fetch(
        "SELECT column_name FROM information_schema.columns WHERE table_name = $1", table
    )
    assert columns <= {row["column_name"] for row in rows}
