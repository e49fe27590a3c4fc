"""Builds in Postgres: `queued -> in_progress -> completed | failed`. The parts, by duty.

Times are the database's. What happens after a commit is not known here (`lifecycle.py`,
`statuses.py`).
"""

from __future__ import annotations

from streams.builds.build_ends import BuildEnds
from streams.builds.build_leases import BuildLeases
from streams.builds.build_reader import BuildReader
from streams.builds.build_requests import BuildRequests
from streams.builds.build_values import BuildBounds
from streams.log.database import Database
from streams.log.log import Log


class BuildRows:
    """The rows `builds`: each part has the statements of one duty."""

    def __init__(self, database: Database, log: Log, bounds: BuildBounds | None = None) -> None:
        self.reader = BuildReader(database)
        self.requests = BuildRequests(database, log, bounds or BuildBounds())
        self.leases = BuildLeases(database, self.reader)
        self.ends = BuildEnds(database, log, self.reader)
