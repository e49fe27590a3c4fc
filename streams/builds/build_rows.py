"""Builds in Postgres: asked for, claimed with a lease, renewed, ended.

`queued → in_progress → completed | failed`. Every write of a worker names the attempt and the
worker: one that lost its lease cannot write. Times are the database's. Ending a build and
appending its message are one transaction. What becomes of a committed change is not known here
(`statuses.py`).
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Literal

import msgspec

from streams.log.database import Database, Row, Session
from streams.log.log import Appended, Log, Unit
from streams.log.sql import statement
from streams.model.build import LEASE_S, MAX_ATTEMPTS, Build, Change, clean
from streams.model.errors import InvalidInput, StreamsError
from streams.model.events import BuildState, Message, NewMessage, prepare

MAX_RESULT_BYTES = 32 * 1024
_UNFINISHED_PER_PROJECT = 500
_CHANGED_AT_ONCE = 2000
# Names the space of advisory locks that are keyed by users.
_USER_LOCKS = 0x5E95_0001

Ending = Literal["completed", "failed"]


class LeaseLost(StreamsError):
    """The build is no longer this worker's: another attempt has it, or it has ended."""


class BuildNotFound(StreamsError):
    """There is no such build in this project."""


class BuildEnded(StreamsError):
    """The build has ended; nothing more can happen to it."""


class BuildHeld(StreamsError):
    """Another worker has the build."""


class TooManyBuilds(StreamsError):
    """The project or the user has as many unfinished builds as it may have."""


class BuildBounds(msgspec.Struct, frozen=True):
    """How many unfinished builds there may be; 0 is no bound."""

    per_project: int = 1000
    per_user: int = 1000
    """Over all projects."""


class Asked(msgspec.Struct, frozen=True):
    """A user's message and the build it asks for."""

    appended: Appended
    build: Build


class Finished(msgspec.Struct, frozen=True):
    """A build that has ended, and its message; none when an earlier try had appended it."""

    build: Build
    message: Message | None


class Counts(msgspec.Struct, frozen=True):
    """How many builds there are, by status; of the ended ones those of the last day."""

    by_status: dict[str, int]
    oldest_queued_s: float


class BuildRows:
    """The rows `builds`. Every method may raise `LogUnavailable`: the outcome is then unknown."""

    def __init__(self, database: Database, log: Log, bounds: BuildBounds | None = None) -> None:
        self._database = database
        self._log = log
        self._bounds = bounds or BuildBounds()

    # Asking.

    async def ask(self, project_id: str, message: NewMessage) -> Asked:
        """Append a user's message and queue the build it asks for, in one transaction.

        With a `client_msg_id` a repeat adds nothing and gives the first result.

        Raises:
            InvalidInput, PayloadTooLarge, IdempotencyMismatch, ProjectNotFound, TooManyBuilds:
                nothing written.
        """
        unit = Unit(project_id, (prepare(message),))
        async with self._database.transaction() as session:
            appended = await _append(self._log, unit, session)
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
            return Asked(appended, _build_of(rows[0]))

    async def _require_room(self, session: Session, project_id: str, user_id: str) -> None:
        """Raise `TooManyBuilds` at the bounds. The append holds the project's row locked, so two
        processes cannot both take the last place.
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

    async def cancel(self, project_id: str, build_id: str) -> Finished:
        """End the build, at once if nobody works on it; else its worker is told to.

        The build that is returned says which: it has ended or it is `cancelled`.

        Raises:
            BuildNotFound, BuildEnded.
        """
        build = await self.get(project_id, build_id)
        if build.ended:
            if build.cancelled:
                return Finished(build, None)
            raise BuildEnded("the build has ended")
        async with self._database.transaction() as session:
            rows = await session.fetch(statement("build_cancel"), uuid.UUID(build_id))
            if not rows:
                raise BuildEnded("the build has ended")
            finished = await self._end_unclaimed(session, _build_of(rows[0]), "cancelled")
        return finished or Finished(_build_of(rows[0]), None)

    # Working.

    async def claim(
        self, worker_id: str, count: int = 1, *, lease_s: float = LEASE_S
    ) -> list[Build]:
        """Take up to `count` builds: those that nobody works on any more first; then the longest
        waiting of the project that has the fewest running, and so on.
        """
        rows = await self._database.fetch(
            statement("build_claim"), worker_id, lease_s, count, MAX_ATTEMPTS
        )
        return [_build_of(row) for row in rows]

    async def claim_one(
        self, project_id: str, build_id: str, worker_id: str, *, lease_s: float = LEASE_S
    ) -> Build:
        """Take this build.

        Raises:
            BuildNotFound, BuildEnded, BuildHeld.
        """
        found = await self.get(project_id, build_id)
        rows = await self._database.fetch(
            statement("build_claim_one"), worker_id, lease_s, uuid.UUID(build_id), MAX_ATTEMPTS
        )
        if rows:
            return _build_of(rows[0])
        if found.ended:
            raise BuildEnded("the build has ended")
        raise BuildHeld("another worker has the build")

    async def renew(self, build: Build, *, lease_s: float = LEASE_S) -> bool:
        """Prolong the lease; tell whether the build shall go on (else it was cancelled).

        Raises `LeaseLost`.
        """
        rows = await self._database.fetch(statement("build_renew"), *_guard(build), lease_s)
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
        """Note progress (0 to 100) and prolong the lease; what is not given stays.

        Raises `LeaseLost`.
        """
        if progress is not None and not 0 <= progress <= 100:
            raise InvalidInput("progress", "must be 0 to 100")
        rows = await self._database.fetch(
            statement("build_progress"),
            *_guard(build),
            progress,
            None if step is None else clean(step),
            None if message is None else clean(message),
            lease_s,
        )
        if not rows:
            raise LeaseLost("the build is another's")
        return _build_of(rows[0])

    async def finish(
        self,
        build: Build,
        status: Ending,
        *,
        message: str | None = None,
        result: bytes | None = None,
    ) -> Finished:
        """End the build and append its message, in one transaction. A repeat is harmless.

        `result` is JSON; it goes into the message's `response_data`.

        Raises:
            LeaseLost: the build is another's.
            InvalidInput: the result is not JSON or too large.
        """
        if result is not None and len(result) > MAX_RESULT_BYTES:
            raise InvalidInput("result", f"is larger than {MAX_RESULT_BYTES} bytes")
        text = None if message is None else clean(message)
        async with self._database.transaction() as session:
            rows = await session.fetch(
                statement("build_end"),
                *_guard(build),
                status,
                text,
                None if result is None else result.decode(),
            )
            if rows:
                return await self._append_end(session, _build_of(rows[0]))
        # Perhaps an earlier try was committed and its answer lost.
        (found,) = await self.by_ids([build.id]) or (None,)
        if (
            found is not None
            and found.ended
            and (found.attempt, found.worker_id) == (build.attempt, build.worker_id)
        ):
            return Finished(found, None)
        raise LeaseLost("the build is another's")

    async def release(self, build: Build) -> None:
        """Give the lease back: another worker may take the build at once, and goes on with the
        same attempt. Only a lease that was lost counts as an attempt.
        """
        await self._database.execute(statement("build_release"), *_guard(build))

    async def fail_abandoned(self, limit: int = 20) -> list[Finished]:
        """End builds that nobody works on and nobody may claim: after the last attempt, or
        cancelled while their worker died.
        """
        rows = await self._database.fetch(statement("builds_abandoned"), MAX_ATTEMPTS, limit)
        ended = []
        for row in rows:
            build = _build_of(row)
            reason = (
                "cancelled"
                if build.cancelled
                else f"given up after {build.attempt} attempts: no worker finished it"
            )
            async with self._database.transaction() as session:
                finished = await self._end_unclaimed(session, build, reason)
            if finished is not None:
                ended.append(finished)
        return ended

    async def _end_unclaimed(self, session: Session, build: Build, reason: str) -> Finished | None:
        rows = await session.fetch(statement("build_end_unclaimed"), uuid.UUID(build.id), reason)
        return await self._append_end(session, _build_of(rows[0])) if rows else None

    async def _append_end(self, session: Session, build: Build) -> Finished:
        unit = Unit(build.project_id, (prepare(end_message(build)),))
        appended = await _append(self._log, unit, session)
        await session.execute(
            statement("build_ended_by"), uuid.UUID(build.id), appended.message.seq
        )
        return Finished(
            msgspec.structs.replace(build, end_seq=appended.message.seq), appended.message
        )

    # Reading.

    async def get(self, project_id: str, build_id: str) -> Build:
        """Return a build of a project. Raises `BuildNotFound`."""
        try:
            key = uuid.UUID(build_id)
        except ValueError:
            raise BuildNotFound("no such build") from None
        rows = await self._database.fetch(statement("build_get"), project_id, key)
        if not rows:
            raise BuildNotFound("no such build")
        return _build_of(rows[0])

    async def by_ids(self, build_ids: Sequence[str]) -> list[Build]:
        """Return those of the builds that exist."""
        rows = await self._database.fetch(
            statement("builds_get"), [uuid.UUID(build_id) for build_id in build_ids]
        )
        return [_build_of(row) for row in rows]

    async def list(
        self, project_id: str, *, status: BuildState | None = None, limit: int = 50
    ) -> list[Build]:
        """Return a project's builds, newest first."""
        rows = await self._database.fetch(statement("builds_list"), project_id, status, limit)
        return [_build_of(row) for row in rows]

    async def unfinished(self, project_ids: Sequence[str]) -> Sequence[Build]:
        """Return the unfinished builds of the projects, at most the newest 500 of each."""
        rows = await self._database.fetch(
            statement("builds_unfinished"), project_ids, _UNFINISHED_PER_PROJECT
        )
        return [_build_of(row) for row in rows]

    async def changed(
        self, project_ids: Sequence[str], *, within_s: float
    ) -> Sequence[tuple[Build, float]]:
        """Return the projects' builds that changed within so many seconds, and how long ago."""
        rows = await self._database.fetch(
            statement("builds_changed"), project_ids, within_s, _CHANGED_AT_ONCE
        )
        return [(_build_of(row), row["age_s"]) for row in rows]

    async def counts(self) -> Counts:
        """Count the builds."""
        rows = await self._database.fetch(statement("builds_counts"))
        oldest = [row["oldest_s"] for row in rows if row["status"] == "queued"]
        return Counts({row["status"]: row["builds"] for row in rows}, max([0.0, *oldest]))


def end_message(build: Build) -> NewMessage:
    """The assistant's message that a build ends with."""
    succeeded = build.status == "completed"
    text = "Build completed" if succeeded else "Build failed"
    if build.message:
        text += f": {build.message}"
    return NewMessage(
        user_id=build.user_id,
        text=text,
        type="assistant",
        mode="build",
        actor_type="worker",
        parent_id=build.message_id,
        metadata={
            "build_id": build.id,
            "response_data": {
                "type": "build_completed" if succeeded else "build_failed",
                "buildId": build.id,
                "versionId": build.version_id,
                "attempt": build.attempt,
                "message": build.message,
                "result": None if build.result is None else msgspec.Raw(build.result),
            },
        },
    )


async def _append(log: Log, unit: Unit, session: Session) -> Appended:
    (outcome,) = await log.append([unit], session)
    if isinstance(outcome, StreamsError):
        # Raised inside the transaction, which is rolled back.
        raise outcome
    return outcome[0]


def _guard(build: Build) -> tuple[uuid.UUID, int, str | None]:
    return uuid.UUID(build.id), build.attempt, build.worker_id


_decode_changes = msgspec.json.Decoder(tuple[Change, ...]).decode


def _build_of(row: Row) -> Build:
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
