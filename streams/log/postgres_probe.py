"""What is known of Postgres: asked twice a second, so that whoever wants to know asks nobody.

The one judge of whether Postgres is up: a single call that fails (no free connection, a lock, a
connection that an administrator ended) is no outage.
"""

from __future__ import annotations

import asyncio
import logging

from streams.log.database import Database
from streams.log.schema import Schema, read_schema
from streams.model.errors import StreamsError
from streams.runtime.health import Health

_log = logging.getLogger(__name__)

_EVERY_S = 0.5
# Generous: a busy machine is no outage.
_TIMEOUT_S = 1.5
# A connection that is open shows neither a changed password nor a change of servers.
_LOOKS_PER_CONNECTION = 20


class PostgresProbe:
    """Asks Postgres for ever, on a connection of its own."""

    def __init__(self, database: Database, health: Health) -> None:
        self._database = database
        self._health = health
        self._problem: str | None = "not asked yet"
        self._schema = Schema()

    @property
    def problem(self) -> str | None:
        """Why Postgres does not serve this process; none when it does."""
        return self._problem

    @property
    def schema(self) -> Schema:
        """The schema as last read."""
        return self._schema

    async def run(self) -> None:
        """Look for ever."""
        while True:
            own = await self._database.another(size=1, timeout_s=_TIMEOUT_S)
            try:
                for _ in range(_LOOKS_PER_CONNECTION):
                    await self._look(own)
                    await asyncio.sleep(_EVERY_S)
                    if self._problem or self._schema.problem:
                        break
            finally:
                await own.close()

    async def _look(self, own: Database) -> None:
        problem: str | None = None
        schema = self._schema
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                schema = await read_schema(own)
        except StreamsError as error:
            problem = str(error)
        except TimeoutError:
            problem = "Postgres does not answer in time"
        if schema != self._schema and (schema.problem or schema.note):
            _log.warning(
                "the database's schema is not the one of this code",
                extra={"schema": schema.problem or schema.note},
            )
        self._problem, self._schema = problem, schema
        self._health.saw_postgres(problem is None and schema.problem is None)
