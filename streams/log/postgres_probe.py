"""Probes Postgres twice a second and keeps the result, so that health requests ask no server.

Only this probe decides whether Postgres is up. Any other call may fail without an outage: no free
connection, a lock, a connection that an administrator closed.
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
# Long enough for a busy machine that is not down.
_TIMEOUT_S = 1.5
# The probe reconnects after this many: an open connection shows neither a changed password nor a
# switch to another server.
_PROBES_PER_CONNECTION = 20


class PostgresProbe:
    """Probes Postgres over a connection of its own."""

    def __init__(self, database: Database, health: Health) -> None:
        self._database = database
        self._health = health
        self._problem: str | None = "not asked yet"
        self._schema = Schema()

    @property
    def problem(self) -> str | None:
        """Why Postgres does not serve this process; None when it does."""
        return self._problem

    @property
    def schema(self) -> Schema:
        """The schema as last read."""
        return self._schema

    async def run(self) -> None:
        """Probe until cancelled."""
        while True:
            own = await self._database.another(size=1, timeout_s=_TIMEOUT_S)
            try:
                for _ in range(_PROBES_PER_CONNECTION):
                    await self._probe(own)
                    await asyncio.sleep(_EVERY_S)
                    if self._problem or self._schema.problem:
                        break
            finally:
                await own.close()

    async def _probe(self, own: Database) -> None:
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
                "the database schema differs from this code's",
                extra={"schema": schema.problem or schema.note},
            )
        self._problem, self._schema = problem, schema
        self._health.saw_postgres(problem is None and schema.problem is None)
