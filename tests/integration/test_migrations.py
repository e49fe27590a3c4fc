"""PROTOCOL.md §7: the schema, brought up to date by `migrate`, and the names that stay."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import count

import pytest

from service.embedded import PostgresServer
from streams import sql
from streams.postgres import Database

_numbers = count(1)


@pytest.fixture
async def empty_database(postgres: PostgresServer) -> AsyncIterator[Database]:
    """A database without a schema."""
    name = f"empty_{next(_numbers)}"
    opened = await Database.open(postgres.create_database(name), size=4)
    yield opened
    await opened.close()
    postgres.psql(f'DROP DATABASE "{name}" WITH (FORCE)')


def _all() -> list[str]:
    return [name for _, name, _ in sql.migrations()]


async def test_a_fresh_database_lacks_every_migration(empty_database: Database) -> None:
    """`doctor` and `serve` can tell that `migrate` was not run."""
    assert await empty_database.missing_migrations() == _all()


async def test_all_are_applied_in_order_and_only_once(empty_database: Database) -> None:
    """Each migration runs once, by its number."""
    assert await empty_database.migrate() == _all()
    assert await empty_database.migrate() == []
    assert await empty_database.missing_migrations() == []


async def test_processes_that_start_together_do_not_migrate_together(
    empty_database: Database,
) -> None:
    """Safe to call from several processes at once."""
    applied = await asyncio.gather(*(empty_database.migrate() for _ in range(4)))
    assert sorted(name for names in applied for name in names) == sorted(_all())


def test_migrations_are_numbered_without_a_hole() -> None:
    """1, 2, 3 …: two files must not claim one number."""
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
    """§7: operators may read these; the names stay."""
    rows = await database.fetch(
        "SELECT column_name FROM information_schema.columns WHERE table_name = $1", table
    )
    assert columns <= {row["column_name"] for row in rows}
