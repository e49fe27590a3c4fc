"""Whether this code can work with the database's schema. `migrations.py` changes the schema."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from streams.log import sql
from streams.log.database import Database
from streams.log.sql import statement

_TABLES = (
    "projects", "project_members", "messages", "builds", "answers", "answer_pieces",
)  # fmt: skip


class Applied(msgspec.Struct, frozen=True):
    """An applied migration; with a `breaking` one, code that does not know it must not run."""

    number: int
    name: str
    breaking: bool


class Schema(msgspec.Struct, frozen=True):
    """`problem` says why this code cannot run with the schema, `note` what it can run with."""

    problem: str | None = None
    note: str | None = None


async def read_schema(database: Database) -> Schema:
    """Compare the database's schema with what this code needs. Raises `LogUnavailable`."""
    (state,) = await database.fetch(statement("schema_state"), list(_TABLES))
    applied: list[Applied] = []
    if state["is_migrated"]:
        rows = await database.fetch(statement("schema_applied"))
        applied = [Applied(row["number"], row["name"], row["breaking"]) for row in rows]
    schema = compare(applied)
    if schema.problem is None and state["lacking"]:
        tables = ", ".join(state["lacking"])
        return Schema(problem=f"tables missing, or not readable by this role: {tables}")
    if schema.problem is None and state["is_read_only"]:
        return Schema(problem="the server is read-only")
    return schema


def compare(applied: Sequence[Applied]) -> Schema:
    """Compare the applied migrations with those that this code knows."""
    known = {number: name for number, name, _ in sql.migrations()}
    missing = [name for number, name in known.items() if number not in {a.number for a in applied}]
    if missing:
        return Schema(problem=f"run seqstream migrate ({', '.join(missing)} missing)")
    newer = [each for each in applied if each.number not in known]
    breaking = [each.name for each in newer if each.breaking]
    if breaking:
        return Schema(problem=f"newer than this code, which must be upgraded: {breaking[0]}")
    if newer:
        return Schema(note=f"newer than this code: {newer[-1].name}")
    return Schema()
