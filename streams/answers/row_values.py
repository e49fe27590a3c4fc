"""Rows of the tables `answers` and `answer_pieces` as values."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

import msgspec

from streams.answers.answer_values import Answer, AnswerState, AnswerStatus
from streams.answers.pieces import AnswerText, Part, piece_of
from streams.log.database import Row


def key_of(answer_id: str) -> uuid.UUID | None:
    """Return the key of an answer's row; None when no answer can have this id."""
    try:
        return uuid.UUID(answer_id)
    except ValueError:
        return None


def answer_of(row: Row) -> Answer:
    """Return an answer's row."""
    question_seq = row["question_seq"]
    regenerates = row["regenerates"]
    return Answer(
        id=str(row["id"]),
        project_id=row["project_id"],
        user_id=row["user_id"],
        # Older code sets the one column alone.
        question_seq=row["message_seq"] if question_seq is None else question_seq,
        reply_to=str(row["message_id"]),
        worker_id=row["worker_id"],
        end_seq=row["end_seq"],
        is_streamed=row["is_streamed"],
        is_outside=row["is_outside"],
        stop_requested_by=row["stop_requested_by"],
        regenerates=None if regenerates is None else str(regenerates),
        text=row["text"],
    )


def text_of(kinds: Sequence[str] | None, bodies: Sequence[str] | None) -> AnswerText:
    """Return what stored pieces say."""
    pairs = zip(kinds or (), bodies or (), strict=True)
    return AnswerText(piece_of(kind, body) for kind, body in pairs)


def unfinished_of(row: Row) -> AnswerState:
    """Return how far an unfinished answer is, from its row with its pieces."""
    stored = text_of(row["kinds"], row["bodies"])
    answer = answer_of(row)
    if stored.is_empty and answer.text:
        # Written by code before pieces.
        index = row["last_index"]
        return _state(answer, answer.text, [], -1 if index is None else index)
    return _state(answer, stored.text, stored.parts, -1 if row["last"] is None else row["last"])


def _state(answer: Answer, text: str, parts: list[Part], index: int) -> AnswerState:
    return AnswerState(answer=answer, status="in_progress", text=text, parts=parts, index=index)


class _ResponseData(msgspec.Struct):
    parts: list[Part] = []


class _Metadata(msgspec.Struct):
    response_data: _ResponseData | None = None


def state_of(row: Row) -> AnswerState:
    """Return how far an answer is, from its row with its pieces and its message."""
    if row["end_seq"] is None:
        return unfinished_of(row)
    parts: list[Part] = []
    if row["end_metadata"] is not None:
        metadata = msgspec.json.decode(row["end_metadata"], type=_Metadata)
        parts = metadata.response_data.parts if metadata.response_data else []
    return AnswerState(
        answer=answer_of(row),
        status=row["status"],
        text=row["end_text"] or "",
        parts=parts,
        index=-1,
    )


def status_of(row: Row) -> AnswerStatus:
    """Return the status of an answer that this or newer code ends."""
    status: AnswerStatus = row["end_status"] or "failed"
    return "in_progress" if row["end_seq"] is None else status
