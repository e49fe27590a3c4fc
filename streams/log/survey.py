"""What an operator sees of the log: a project's range and what is missing of it, open work.

Read only, each read bounded by its statement. The guarantees of the log are in `log.py`; nothing
of the service's own work depends on what is read here.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from streams.log.database import Database
from streams.log.sql import statement


class ProjectSurvey(msgspec.Struct, frozen=True):
    """A project's row and range. `newest` are the seqs that exist among its newest ones.

    `first_seq` is None when the project has no message.
    """

    id: str
    owner_id: str
    name: str
    created_at: datetime
    head: int
    first_seq: int | None
    newest: tuple[int, ...]


class OpenAnswer(msgspec.Struct, frozen=True):
    """An answer that is being written, `age_s` after it was begun."""

    id: str
    project_id: str
    user_id: str
    message_seq: int
    worker_id: str
    age_s: float


class LogSurvey:
    """Reads for the console. Every method may raise `LogUnavailable`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def project(self, project_id: str, *, newest: int) -> ProjectSurvey | None:
        """Return a project with which of its `newest` seqs exist; None: no such project."""
        rows = await self._database.fetch(statement("project_survey"), project_id, newest)
        if not rows:
            return None
        row = rows[0]
        return ProjectSurvey(
            id=row["id"],
            owner_id=row["owner_id"],
            name=row["name"],
            created_at=row["created_at"],
            head=row["last_seq"],
            first_seq=row["first_seq"],
            newest=tuple(row["newest"]),
        )

    async def open_answers(
        self, project_id: str | None, *, limit: int
    ) -> tuple[list[OpenAnswer], int]:
        """Return the newest unfinished answers of a project, or of all, and how many there are."""
        rows = await self._database.fetch(statement("answers_unfinished"), project_id, limit)
        answers = [
            OpenAnswer(
                id=str(row["id"]),
                project_id=row["project_id"],
                user_id=row["user_id"],
                message_seq=row["answered_seq"],
                worker_id=row["worker_id"],
                age_s=row["age_s"],
            )
            for row in rows
        ]
        return answers, rows[0]["in_all"] if rows else 0
