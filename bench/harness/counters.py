"""Redis' and Postgres' own counters, read before and after a run.

Postgres' are from pg_stat_statements, since pg_stat_database lags by up to ten seconds. The
statements and commands that read the counters are left out by name.
"""

from __future__ import annotations

from collections.abc import Mapping

import asyncpg
import redis.asyncio as redis

_OWN_COMMANDS = frozenset({"info", "client", "client|setinfo", "hello", "config", "select", "auth"})


async def redis_calls(url: str) -> dict[str, int]:
    """Return the number of calls of each Redis command since the server started."""
    client = redis.Redis.from_url(url, protocol=2)
    try:
        found = await client.info("commandstats")
    finally:
        await client.aclose()
    return {
        name.removeprefix("cmdstat_"): int(values["calls"])
        for name, values in found.items()
        if name.removeprefix("cmdstat_") not in _OWN_COMMANDS
    }


def difference(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    """Return the counters that grew, and by how much."""
    grown = {name: count - before.get(name, 0) for name, count in after.items()}
    return {name: count for name, count in grown.items() if count}


async def count_statements_of(database_url: str) -> None:
    """Create the extension that `statements` reads; the server must have it preloaded."""
    connection = await asyncpg.connect(database_url, timeout=10)
    try:
        await connection.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
    finally:
        await connection.close(timeout=5)


async def statements(database_url: str) -> dict[str, int]:
    """Return the number of calls by normalised statement since the server started."""
    connection = await asyncpg.connect(database_url, timeout=10)
    try:
        rows = await connection.fetch(
            "SELECT query, sum(calls)::bigint AS calls FROM pg_stat_statements s"
            " JOIN pg_database d ON d.oid = s.dbid WHERE d.datname = current_database()"
            " AND query NOT LIKE '%pg_stat_statements%' GROUP BY query ORDER BY calls DESC"
        )
    finally:
        await connection.close(timeout=5)
    return {" ".join(row["query"].split()): row["calls"] for row in rows}
