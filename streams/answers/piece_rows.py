"""The table `answer_pieces`: what was written of unfinished answers, and reading how far they are.

Pieces are stored before they are put into a stream, so here is at least what any reader was shown.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence

import msgspec

from streams.answers.answer_values import AnswerProgress, AnswerState
from streams.answers.pieces import Piece
from streams.answers.row_values import unfinished_of
from streams.log.database import Database
from streams.log.sql import statement

MAX_SHOWN = 100
"""Unfinished answers of a project that its streams are told of, the newest."""

MAX_PROGRESS = 5000
"""Unfinished answers of all projects together of which `progress` tells."""

# With pieces of at most 32 KiB a statement stays below a few MiB.
_STORED_AT_ONCE = 100


class NewPiece(msgspec.Struct, frozen=True):
    """A piece to store, under its index in the stream."""

    answer_id: str
    index: int
    piece: Piece


class PieceRows:
    """Stores and reads pieces. Every method may raise `LogUnavailable`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def store(self, pieces: Sequence[NewPiece], worker_id: str) -> Mapping[str, str | None]:
        """Store pieces of answers that this worker owns; storing one again changes nothing.

        Returns those answers that it still owns, each with the user who asked it to stop.
        """
        owned: dict[str, str | None] = {}
        for start in range(0, len(pieces), _STORED_AT_ONCE):
            some = pieces[start : start + _STORED_AT_ONCE]
            rows = await self._database.fetch(
                statement("answer_pieces_store"),
                [uuid.UUID(each.answer_id) for each in some],
                [each.index for each in some],
                [each.piece.kind for each in some],
                [each.piece.body for each in some],
                worker_id,
            )
            owned.update((str(row["id"]), row["stop_requested_by"]) for row in rows)
        return owned

    async def so_far(self, project_ids: Sequence[str]) -> list[AnswerState]:
        """Return the unfinished answers of the projects, of each at most `MAX_SHOWN`."""
        rows = await self._database.fetch(statement("answers_so_far"), project_ids, MAX_SHOWN)
        return [unfinished_of(row) for row in rows]

    async def progress(self, project_ids: Sequence[str]) -> list[AnswerProgress]:
        """Return how far the unfinished answers of the projects are, without their text."""
        rows = await self._database.fetch(statement("answers_progress"), project_ids, MAX_PROGRESS)
        return [
            AnswerProgress(
                str(row["id"]),
                row["project_id"],
                row["last_index"],
                row["is_streamed"],
                row["age_s"],
            )
            for row in rows
        ]
