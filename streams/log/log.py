"""The log: every message of every project, in Postgres, seq 1..head without a hole.

Appends whole batches in one round trip and reads pages. Group commit is in `appender.py`; what
becomes of a committed message afterwards is not known here.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec

from streams.log.database import Database, Row, Session
from streams.log.sql import statement
from streams.model.errors import IdempotencyMismatch, ProjectNotFound, StreamsError
from streams.model.events import NO_METADATA, Content, Message, PreparedMessage, format_time
from streams.model.ids import MAX_SEQ

# Texts and metadata of one read, unless a caller says otherwise.
PAGE_BYTES = 1024 * 1024

_WRITTEN, _REPEAT, _MISMATCH, _NO_PROJECT, _UNIT_REFUSED = range(5)


class Unit(msgspec.Struct, frozen=True):
    """Messages of one project that are appended together or not at all, in order."""

    project_id: str
    messages: tuple[PreparedMessage, ...]


class Appended(msgspec.Struct, frozen=True):
    """A message as it stands in the log; `duplicate` when an earlier append put it there."""

    message: Message
    duplicate: bool


class Slice(msgspec.Struct, frozen=True):
    """Consecutive messages of a project; `is_cut` when its bytes may have ended it."""

    messages: list[Message]
    is_cut: bool


class Page(msgspec.Struct, frozen=True):
    """Consecutive messages of a project, and its head as it was read just before them."""

    messages: list[Message]
    head: int


class Log:
    """The messages of all projects."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def append(
        self, units: Sequence[Unit], session: Session | None = None
    ) -> list[list[Appended] | StreamsError]:
        """Append the units in one transaction; give each its result or the error that is its own.

        No (project, user, client_msg_id) may occur twice among all the units. `session` is a
        transaction to append within, else the append commits by itself.

        Raises:
            Contended: another session holds one of the projects; nothing is written.
            LogUnavailable: Postgres does not answer; the outcome is unknown.
        """
        items = [
            (unit.project_id, number, message)
            for number, unit in enumerate(units)
            for message in unit.messages
        ]
        sources = [message.source for _, _, message in items]
        rows = await (session or self._database).fetch(
            statement("append"),
            [project_id for project_id, _, _ in items],
            [number for _, number, _ in items],
            [message.message_id for _, _, message in items],
            [source.client_msg_id for source in sources],
            [source.user_id for source in sources],
            [source.text for source in sources],
            [source.type for source in sources],
            [source.mode for source in sources],
            [source.actor_type for source in sources],
            [source.parent_id for source in sources],
            [m.metadata.decode() if m.metadata is not None else None for _, _, m in items],
            [message.digest for _, _, message in items],
        )
        results: list[list[Appended] | StreamsError] = []
        start = 0
        last_time: datetime | None = None
        timestamp = ""
        for unit in units:
            appended: list[Appended] = []
            refusal: StreamsError | None = None
            for index, message in enumerate(unit.messages):
                row = rows[start + index]
                outcome: int = row[0]
                if outcome <= _REPEAT:
                    seq, message_id, created_at = row[1], row[2], row[3]
                    if created_at != last_time:
                        last_time, timestamp = created_at, format_time(created_at)
                    message_id = message.message_id if message_id is None else str(message_id)
                    committed = message.committed(unit.project_id, seq, message_id, timestamp)
                    appended.append(Appended(committed, outcome == _REPEAT))
                elif outcome == _MISMATCH:
                    assert message.source.client_msg_id is not None
                    refusal = IdempotencyMismatch(
                        message.source.client_msg_id, seq=row[1], index=index
                    )
                    break
                elif outcome == _NO_PROJECT:
                    refusal = ProjectNotFound(unit.project_id)
                    break
            start += len(unit.messages)
            results.append(refusal or appended)
        return results

    async def locked(self, project_ids: Sequence[str]) -> set[str]:
        """Return those of the projects whose row another session holds locked."""
        rows = await self._database.fetch(statement("projects_locked"), list(project_ids))
        return {row["id"] for row in rows}

    async def head(self, project_id: str) -> int:
        """Return the head of a project. Raises `ProjectNotFound`, `LogUnavailable`."""
        heads = await self.heads([project_id])
        if project_id not in heads:
            raise ProjectNotFound(project_id)
        return heads[project_id]

    async def heads(self, project_ids: Sequence[str]) -> dict[str, int]:
        """Return the heads of those of the projects that exist."""
        rows = await self._database.fetch(statement("heads"), list(project_ids))
        return {row["id"]: row["last_seq"] for row in rows}

    async def heads_unlike(self, project_ids: Sequence[str], seqs: Sequence[int]) -> dict[str, int]:
        """Return the heads of those of the projects whose head is not the seq given for it.

        Of thousands of projects that are asked for twice a second, few have just got a message.
        """
        rows = await self._database.fetch(statement("heads_unlike"), list(project_ids), list(seqs))
        return {row["id"]: row["last_seq"] for row in rows}

    async def read(
        self,
        project_id: str,
        *,
        after: int = 0,
        before: int = MAX_SEQ,
        limit: int = 200,
        descending: bool = False,
        max_bytes: int = PAGE_BYTES,
    ) -> list[Message]:
        """Return the messages of a slice: see `slice`."""
        found = await self.slice(
            project_id,
            after=after,
            before=before,
            limit=limit,
            descending=descending,
            max_bytes=max_bytes,
        )
        return found.messages

    async def slice(
        self,
        project_id: str,
        *,
        after: int,
        before: int = MAX_SEQ,
        limit: int,
        descending: bool = False,
        max_bytes: int = PAGE_BYTES,
    ) -> Slice:
        """Return at most `limit` messages with `after < seq < before`, from the bound on.

        Fewer where they are large: the one that brings texts and metadata to `max_bytes` is the
        last. A message that is returned has none missing before it: seqs are committed in order.
        """
        name = "history_descending" if descending else "history_ascending"
        rows = await self._database.fetch(
            statement(name), project_id, after, before, limit, max_bytes
        )
        is_cut = bool(rows) and rows[-1]["upto"] >= max_bytes
        return Slice([_message(project_id, row) for row in rows], is_cut)

    async def page(
        self, project_id: str, *, after: int, before: int, limit: int, descending: bool
    ) -> Page:
        """Return a page of the history with the head, read in that order: head, then messages."""
        head = await self.head(project_id)
        messages = await self.read(
            project_id, after=after, before=before, limit=limit, descending=descending
        )
        return Page(messages, head)


def _message(project_id: str, row: Row) -> Message:
    metadata = row["metadata"]
    return Message(
        seq=row["seq"],
        message_id=str(row["id"]),
        client_msg_id=row["client_msg_id"],
        project_id=project_id,
        user_id=row["user_id"],
        content=Content(row["text"], row["type"], row["mode"], row["actor_type"]),
        timestamp=format_time(row["created_at"]),
        metadata=NO_METADATA if metadata is None else msgspec.Raw(metadata.encode()),
        parent_id=row["parent_id"],
    )
