"""Reading builds from Postgres. Nothing is written here."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

import msgspec

from streams.builds.build_errors import BuildNotFound
from streams.builds.build_values import Counts
from streams.log.database import Database, Row
from streams.log.sql import statement
from streams.model.build import Build, Change
from streams.model.events import BuildState

_UNFINISHED_PER_PROJECT = 500
_CHANGED_AT_ONCE = 2000


class BuildReader:
    """Reads builds. Every method may raise `LogUnavailable`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, project_id: str, build_id: str) -> Build:
        """Return a build of a project. Raises `BuildNotFound`."""
        try:
            key = uuid.UUID(build_id)
        except ValueError:
            raise BuildNotFound("no such build") from None
        rows = await self._database.fetch(statement("build_get"), project_id, key)
        if not rows:
            raise BuildNotFound("no such build")
        return build_of(rows[0])

    async def by_ids(self, build_ids: Sequence[str]) -> list[Build]:
        """Return the builds that exist among these."""
        rows = await self._database.fetch(
            statement("builds_get"), [uuid.UUID(build_id) for build_id in build_ids]
        )
        return [build_of(row) for row in rows]

    async def list(
        self, project_id: str, *, status: BuildState | None = None, limit: int = 50
    ) -> list[Build]:
        """Return a project's builds, newest first."""
        rows = await self._database.fetch(statement("builds_list"), project_id, status, limit)
        return [build_of(row) for row in rows]

    async def unfinished(self, project_ids: Sequence[str]) -> Sequence[Build]:
        """Return the unfinished builds of the projects, at most the newest 500 of each."""
        rows = await self._database.fetch(
            statement("builds_unfinished"), project_ids, _UNFINISHED_PER_PROJECT
        )
        return [build_of(row) for row in rows]

    async def changed(
        self, project_ids: Sequence[str], *, within_s: float
    ) -> Sequence[tuple[Build, float]]:
        """Return the builds that changed in the last `within_s`, each with its age in seconds."""
        rows = await self._database.fetch(
            statement("builds_changed"), project_ids, within_s, _CHANGED_AT_ONCE
        )
        return [(build_of(row), row["age_s"]) for row in rows]

    async def counts(self) -> Counts:
        """Count the builds."""
        rows = await self._database.fetch(statement("builds_counts"))
        oldest = [row["oldest_s"] for row in rows if row["status"] == "queued"]
        return Counts({row["status"]: row["builds"] for row in rows}, max([0.0, *oldest]))


_decode_changes = msgspec.json.Decoder(tuple[Change, ...]).decode


def build_of(row: Row) -> Build:
    """Read a row of `builds`."""
    return Build(
        id=str(row["id"]),
        project_id=row["project_id"],
        version_id=row["version_id"],
        user_id=row["user_id"],
        message_seq=row["message_seq"],
        message_id=str(row["message_id"]),
        request=row["request"],
        metadata=None if row["metadata"] is None else row["metadata"].encode(),
        status=row["status"],
        attempt=row["attempt"],
        progress=row["progress"],
        step=row["step"],
        message=row["message"],
        worker_id=row["worker_id"],
        cancelled=row["cancelled"],
        result=None if row["result"] is None else row["result"].encode(),
        end_seq=row["end_seq"],
        revision=row["revision"],
        changes=_decode_changes(row["changes"]),
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        started_at=row["started_at"],
        ended_at=row["ended_at"],
    )
