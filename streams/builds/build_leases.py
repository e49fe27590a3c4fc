"""Claims and leases: how workers take builds, keep them and give them back.

Every write of a worker names the attempt and the worker, so a worker that lost its lease cannot
write. Ending a build is in `build_ends.py`.
"""

from __future__ import annotations

import uuid

from streams.builds.build_errors import BuildEnded, BuildHeld, LeaseLost
from streams.builds.build_reader import BuildReader, build_of
from streams.log.database import Database
from streams.log.sql import statement
from streams.model.build import LEASE_S, MAX_ATTEMPTS, Build, clean
from streams.model.errors import InvalidInput


class BuildLeases:
    """Claims, renews and releases builds. After `LogUnavailable` the outcome is unknown."""

    def __init__(self, database: Database, reader: BuildReader) -> None:
        self._database = database
        self._reader = reader

    async def claim(
        self, worker_id: str, count: int = 1, *, lease_s: float = LEASE_S
    ) -> list[Build]:
        """Claim up to `count` builds.

        Builds whose lease has expired come first; then, one by one, the longest waiting build of
        the project that has the fewest running.
        """
        rows = await self._database.fetch(
            statement("build_claim"), worker_id, lease_s, count, MAX_ATTEMPTS
        )
        return [build_of(row) for row in rows]

    async def claim_one(
        self, project_id: str, build_id: str, worker_id: str, *, lease_s: float = LEASE_S
    ) -> Build:
        """Claim this build.

        Raises:
            BuildNotFound, BuildEnded, BuildHeld.
        """
        found = await self._reader.get(project_id, build_id)
        rows = await self._database.fetch(
            statement("build_claim_one"), worker_id, lease_s, uuid.UUID(build_id), MAX_ATTEMPTS
        )
        if rows:
            return build_of(rows[0])
        if found.ended:
            raise BuildEnded("the build has ended")
        raise BuildHeld("another worker has the build")

    async def renew(self, build: Build, *, lease_s: float = LEASE_S) -> bool:
        """Prolong the lease; return whether the build goes on (False: it was cancelled).

        Raises `LeaseLost`.
        """
        rows = await self._database.fetch(statement("build_renew"), *lease_of(build), lease_s)
        if not rows:
            raise LeaseLost("the build is another's")
        return not rows[0]["cancelled"]

    async def report(
        self,
        build: Build,
        *,
        progress: float | None = None,
        step: str | None = None,
        message: str | None = None,
        lease_s: float = LEASE_S,
    ) -> Build:
        """Record progress (0 to 100) and prolong the lease; None leaves a value as it is.

        Raises `LeaseLost`.
        """
        if progress is not None and not 0 <= progress <= 100:
            raise InvalidInput("progress", "must be 0 to 100")
        rows = await self._database.fetch(
            statement("build_progress"),
            *lease_of(build),
            progress,
            None if step is None else clean(step),
            None if message is None else clean(message),
            lease_s,
        )
        if not rows:
            raise LeaseLost("the build is another's")
        return build_of(rows[0])

    async def release(self, build: Build) -> None:
        """Give the lease back: another worker may claim the build at once.

        It continues the same attempt: only a lease that expired counts as an attempt.
        """
        await self._database.execute(statement("build_release"), *lease_of(build))


def lease_of(build: Build) -> tuple[uuid.UUID, int, str | None]:
    """Return the build, attempt and worker that a worker's statement names."""
    return uuid.UUID(build.id), build.attempt, build.worker_id
