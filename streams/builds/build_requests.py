"""Requesting builds: a user's message and its build, within the bounds, in one transaction."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from streams.builds.build_append import append_one
from streams.builds.build_errors import TooManyBuilds
from streams.builds.build_reader import build_of
from streams.builds.build_values import Asked, BuildBounds
from streams.log.database import Database, Row, Session
from streams.log.log import Log, Unit
from streams.log.sql import statement
from streams.model.events import NewMessage, prepare

# Names the space of advisory locks that are keyed by users.
_USER_LOCKS = 0x5E95_0001


class BuildRequests:
    """Queues builds. After `LogUnavailable` the outcome is unknown."""

    def __init__(self, database: Database, log: Log, bounds: BuildBounds) -> None:
        self._database = database
        self._log = log
        self._bounds = bounds

    async def ask(self, project_id: str, message: NewMessage) -> Asked:
        """Append a user's message and queue the build it requests, in one transaction.

        With a `client_msg_id` a repeat adds nothing and returns the first result.

        Raises:
            InvalidInput, PayloadTooLarge, IdempotencyMismatch, ProjectNotFound, TooManyBuilds:
                nothing written.
        """
        unit = Unit(project_id, (prepare(message),))
        async with self._database.transaction() as session:
            appended = await append_one(self._log, unit, session)
            committed = appended.message
            rows: Sequence[Row] = ()
            if appended.duplicate:
                rows = await session.fetch(statement("build_of_message"), project_id, committed.seq)
            if not rows:
                await self._require_room(session, project_id, message.user_id)
                metadata = unit.messages[0].metadata
                rows = await session.fetch(
                    statement("build_create"),
                    uuid.uuid4(),
                    project_id,
                    uuid.uuid4().hex,
                    message.user_id,
                    committed.seq,
                    uuid.UUID(committed.message_id),
                    message.text,
                    None if metadata is None else metadata.decode(),
                )
            return Asked(appended, build_of(rows[0]))

    async def _require_room(self, session: Session, project_id: str, user_id: str) -> None:
        """Raise `TooManyBuilds` at the bounds.

        The append holds the lock on the project's row, and the statement here one on the user, so
        two processes cannot both take the last place.
        """
        per_project, per_user = self._bounds.per_project, self._bounds.per_user
        if per_user:
            await session.execute(statement("build_user_lock"), _USER_LOCKS, user_id)
        if per_project or per_user:
            (room,) = await session.fetch(
                statement("build_room"), project_id, user_id, per_project, per_user
            )
            if per_project and room["of_project"] >= per_project:
                raise TooManyBuilds("the project has too many unfinished builds")
            if per_user and room["of_user"] >= per_user:
                raise TooManyBuilds("the user has too many unfinished builds")
