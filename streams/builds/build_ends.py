"""Ending builds: by their worker, by a user who cancels, or after the last attempt.

Ending a build and appending its message are one transaction. Publishing is in `statuses.py`.
"""

from __future__ import annotations

import uuid

import msgspec

from streams.builds.build_append import append_one
from streams.builds.build_errors import BuildEnded, LeaseLost
from streams.builds.build_leases import lease_of
from streams.builds.build_reader import BuildReader, build_of
from streams.builds.build_values import MAX_RESULT_BYTES, Ending, Finished
from streams.log.database import Database, Session
from streams.log.log import Log, Unit
from streams.log.sql import statement
from streams.model.build import MAX_ATTEMPTS, Build, clean
from streams.model.errors import InvalidInput
from streams.model.events import NewMessage, prepare


class BuildEnds:
    """Ends builds. After `LogUnavailable` the outcome is unknown."""

    def __init__(self, database: Database, log: Log, reader: BuildReader) -> None:
        self._database = database
        self._log = log
        self._reader = reader

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
                *lease_of(build),
                status,
                text,
                None if result is None else result.decode(),
            )
            if rows:
                return await self._append_end(session, build_of(rows[0]))
        # Perhaps an earlier call was committed and its reply lost.
        (found,) = await self._reader.by_ids([build.id]) or (None,)
        if (
            found is not None
            and found.ended
            and (found.attempt, found.worker_id) == (build.attempt, build.worker_id)
        ):
            return Finished(found, None)
        raise LeaseLost("the build is another's")

    async def cancel(self, project_id: str, build_id: str) -> Finished:
        """End the build at once if no worker has it; else mark it `cancelled` for its worker.

        The returned build shows which: `ended` or `cancelled`.

        Raises:
            BuildNotFound, BuildEnded.
        """
        build = await self._reader.get(project_id, build_id)
        if build.ended:
            if build.cancelled:
                return Finished(build, None)
            raise BuildEnded("the build has ended")
        async with self._database.transaction() as session:
            rows = await session.fetch(statement("build_cancel"), uuid.UUID(build_id))
            if not rows:
                raise BuildEnded("the build has ended")
            finished = await self._end_unclaimed(session, build_of(rows[0]), "cancelled")
        return finished or Finished(build_of(rows[0]), None)

    async def fail_abandoned(self, limit: int = 20) -> list[Finished]:
        """End builds that have no worker and cannot be claimed.

        They lost the lease of the last attempt, or were cancelled when their worker had died.
        """
        rows = await self._database.fetch(statement("builds_abandoned"), MAX_ATTEMPTS, limit)
        ended = []
        for row in rows:
            build = build_of(row)
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
        return await self._append_end(session, build_of(rows[0])) if rows else None

    async def _append_end(self, session: Session, build: Build) -> Finished:
        unit = Unit(build.project_id, (prepare(end_message(build)),))
        appended = await append_one(self._log, unit, session)
        await session.execute(
            statement("build_ended_by"), uuid.UUID(build.id), appended.message.seq
        )
        return Finished(
            msgspec.structs.replace(build, end_seq=appended.message.seq), appended.message
        )


def end_message(build: Build) -> NewMessage:
    """Return the assistant's message that ends a build."""
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
