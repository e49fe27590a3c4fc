"""Brings the schema of a database up to date: numbered SQL files and a table of what was applied.

There is no migration framework: nothing here maps rows to objects, and server-side functions are
written in SQL anyway. Whether the schema fits this code is judged in `schema.py`.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from streams.log import sql
from streams.log.database import Database, Session
from streams.log.sql import statement

# Held while migrating, so that processes that start together migrate one after the other.
_LOCK = 0x5E95_74EA


async def migrate(database: Database) -> list[str]:
    """Apply the missing migrations and return their names.

    Safe to call from several processes at once. Raises `LogUnavailable`.
    """
    async with _locked(database) as session:
        await _prepare_table(session)
    # A transaction of its own: `_prepare_table` may have locked the table against all readers.
    async with _locked(database) as session:
        rows = await session.fetch("SELECT number FROM schema_migrations")
        applied = {row["number"] for row in rows}
        missing = [each for each in sql.migrations() if each[0] not in applied]
        for number, name, text in missing:
            await session.execute(text)
            await session.execute(
                "INSERT INTO schema_migrations (number, name, breaking) VALUES ($1, $2, $3)",
                number, name, sql.is_breaking(text),
            )  # fmt: skip
    return [name for _, name, _ in missing]


@contextlib.asynccontextmanager
async def _locked(database: Database) -> AsyncIterator[Session]:
    async with database.transaction() as session:
        await session.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
        yield session


async def _prepare_table(session: Session) -> None:
    """Create the table of applied migrations, or add its newer column `breaking`."""
    await session.execute(
        "CREATE TABLE IF NOT EXISTS schema_migrations"
        " (number int PRIMARY KEY, name text NOT NULL, at timestamptz DEFAULT now())"
    )
    # Checked first: ALTER TABLE locks out all readers even when the column exists.
    if not await session.fetch(statement("schema_has_breaking")):
        await session.execute(
            "ALTER TABLE schema_migrations ADD COLUMN breaking boolean NOT NULL DEFAULT false"
        )
