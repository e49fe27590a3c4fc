"""The log in Postgres: the messages of every project, with seqs 1..head without a gap.

Appends batches in one round trip and reads pages. Group commit is in `appender.py` and
`committer.py`; publishing a committed message is not done here.
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

# Bytes of texts and metadata that one read returns by default.
PAGE_BYTES = 1024 * 1024

# Outcomes of one message in `seqstream_append`.
_WRITTEN, _REPEAT, _MISMATCH, _NO_PROJECT, _UNIT_REFUSED = range(5)


class Unit(msgspec.Struct, frozen=True):
    """Messages of one project that are appended in order, all or none."""

    project_id: str
    messages: tuple[PreparedMessage, ...]


class Appended(msgspec.Struct, frozen=True):
    """A committed message; `duplicate` when an earlier append had written it."""

    message: Message
    duplicate: bool


class Slice(msgspec.Struct, frozen=True):
    """Consecutive messages of a project; `is_cut` when the byte limit may have ended it."""

    messages: list[Message]
    is_cut: bool


class Page(msgspec.Struct, frozen=True):
    """Consecutive messages of a project, and its head as read just before them."""

    messages: list[Message]
    head: int


class Log:
    """The messages of all projects."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def append(
        self, units: Sequence[Unit], session: Session | None = None
    ) -> list[list[Appended] | StreamsError]:
        """Append the units in one transaction; return the messages or the error of each unit.

        A (project, user, client_msg_id) must not occur twice among all the units. `session` is a
        transaction to append within; without one the append commits by itself.

        Raises:
            Contended: another session holds one of the projects locked; nothing is written.
            LogUnavailable: Postgres does not answer; the outcome is unknown.
        """
        rows = await (session or self._database).fetch(statement("append"), *_columns(units))
        return _results(units, rows)

    async def locked(self, project_ids: Sequence[str]) -> set[str]:
        """Return the projects among these whose row another session holds locked."""
        rows = await self._database.fetch(statement("projects_locked"), list(project_ids))
        return {row["id"] for row in rows}

    async def head(self, project_id: str) -> int:
        """Return the head of a project. Raises `ProjectNotFound`, `LogUnavailable`."""
        heads = await self.heads([project_id])
        if project_id not in heads:
            raise ProjectNotFound(project_id)
        return heads[project_id]

    async def heads(self, project_ids: Sequence[str]) -> dict[str, int]:
        """Return the heads of the projects among these that exist."""
        rows = await self._database.fetch(statement("heads"), list(project_ids))
        return {row["id"]: row["last_seq"] for row in rows}

    async def heads_unlike(self, project_ids: Sequence[str], seqs: Sequence[int]) -> dict[str, int]:
        """Return the heads that differ from the given seqs: `seqs[n]` belongs to `project_ids[n]`.

        The heads poll asks for thousands of projects twice a second, and few have a new message.
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
        """Return the messages of `slice`."""
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
        """Return at most `limit` messages with `after < seq < before`.

        They begin next to `after`, or next to `before` when descending. The message that brings
        texts and metadata to `max_bytes` is the last. No seq between two returned messages is
        missing, because seqs are committed in order.
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
        """Return a page of the history with the head, which is read before the messages."""
        head = await self.head(project_id)
        messages = await self.read(
            project_id, after=after, before=before, limit=limit, descending=descending
        )
        return Page(messages, head)


def _columns(units: Sequence[Unit]) -> tuple[list[object], ...]:
    """Return the parameters of `append.sql`: one array a column, one element a message."""
    items = [
        (unit.project_id, number, message)
        for number, unit in enumerate(units)
        for message in unit.messages
    ]
    sources = [message.source for _, _, message in items]
    return (
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


def _results(units: Sequence[Unit], rows: Sequence[Row]) -> list[list[Appended] | StreamsError]:
    """Match the rows of `append.sql`, one a message in order, with the units."""
    results: list[list[Appended] | StreamsError] = []
    row_of = iter(rows)
    last_time: datetime | None = None
    timestamp = ""
    for unit in units:
        appended: list[Appended] = []
        refusal: StreamsError | None = None
        for index, message in enumerate(unit.messages):
            row = next(row_of)
            outcome: int = row[0]
            if outcome > _REPEAT:
                refusal = refusal or _refusal(outcome, unit, index, row[1])
                continue
            seq, first_id, created_at = row[1], row[2], row[3]
            # The new messages of one commit have the same time: it is formatted once.
            if created_at != last_time:
                last_time, timestamp = created_at, format_time(created_at)
            message_id = message.message_id if first_id is None else str(first_id)
            committed = message.committed(unit.project_id, seq, message_id, timestamp)
            appended.append(Appended(committed, outcome == _REPEAT))
        results.append(refusal or appended)
    return results


def _refusal(outcome: int, unit: Unit, index: int, seq: int | None) -> StreamsError | None:
    """Return why a message was refused; None when another message of its unit was."""
    if outcome == _MISMATCH:
        client_msg_id = unit.messages[index].source.client_msg_id
        assert client_msg_id is not None
        return IdempotencyMismatch(client_msg_id, seq=seq, index=index)
    if outcome == _NO_PROJECT:
        return ProjectNotFound(unit.project_id)
    return None


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
