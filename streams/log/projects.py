"""Projects and their members in Postgres. Nothing is cached here: see `access/membership.py`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec

from streams.log.database import Database
from streams.log.sql import statement
from streams.model.errors import ProjectExists, ProjectNotFound
from streams.model.ids import check_project_id, check_user_id


class Project(msgspec.Struct, frozen=True):
    """A project's row."""

    id: str
    owner_id: str
    name: str
    head: int
    created_at: datetime


class Projects:
    """The tables `projects` and `project_members`. Every method may raise `LogUnavailable`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, project_id: str, owner_id: str, name: str) -> tuple[Project, bool]:
        """Create a project and return it with whether it is new; the owner may repeat the call.

        Raises:
            InvalidInput: an id breaks a rule of docs/protocol.md §1 or §3.
            ProjectExists: another user owns a project with this id.
        """
        check_project_id(project_id, "id")
        check_user_id(owner_id)
        tag = await self._database.execute(statement("project_create"), project_id, owner_id, name)
        project = await self.get(project_id)
        if project.owner_id != owner_id:
            raise ProjectExists(project_id)
        return project, tag.endswith(" 1")

    async def get(self, project_id: str) -> Project:
        """Return a project. Raises `ProjectNotFound`."""
        rows = await self._database.fetch(statement("project_get"), project_id)
        if not rows:
            raise ProjectNotFound(project_id)
        row = rows[0]
        return Project(row["id"], row["owner_id"], row["name"], row["last_seq"], row["created_at"])

    async def members(self, project_id: str, *, after: str = "", limit: int = 1000) -> list[str]:
        """Return up to `limit` collaborators after a user id, by user id; without the owner."""
        rows = await self._database.fetch(statement("project_members"), project_id, after, limit)
        return [row["user_id"] for row in rows]

    async def which_are_members(self, pairs: Sequence[tuple[str, str]]) -> set[tuple[str, str]]:
        """Return the (project, user) pairs in which the user is the owner or a collaborator.

        A project that does not exist has no members.
        """
        rows = await self._database.fetch(
            statement("members_among"), [p for p, _ in pairs], [u for _, u in pairs]
        )
        return {(row["project_id"], row["user_id"]) for row in rows}

    async def add_member(self, project_id: str, user_id: str) -> None:
        """Make the user a collaborator; a repeat changes nothing."""
        await self._database.execute(statement("member_add"), project_id, user_id)

    async def remove_member(self, project_id: str, user_id: str) -> bool:
        """Remove a collaborator; tell whether the user was one."""
        tag = await self._database.execute(statement("member_remove"), project_id, user_id)
        return tag.endswith(" 1")
