"""What the statements on answers take and return. Pure.

How an answer ends, and as which message, is in `answer_ends.py`.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from streams.log.log import Appended

AnswerStatus = Literal["in_progress", "completed", "stopped", "failed"]


class Answer(msgspec.Struct, frozen=True):
    """An answer's row. `id` and `end_seq` are the id and the seq of the message that ends it.

    `text` is what its writer had stored when the row was read; empty once it has ended.
    """

    id: str
    project_id: str
    user_id: str
    message_seq: int
    message_id: str
    worker_id: str
    end_seq: int | None
    text: str


class Begun(msgspec.Struct, frozen=True):
    """A user's message and its answer; `is_ours` when this call created the answer."""

    appended: Appended
    answer: Answer
    is_ours: bool


class Checkpoint(msgspec.Struct, frozen=True):
    """The text of an answer up to piece `last_index`; None when nothing changed since the last."""

    answer_id: str
    text: str | None
    last_index: int | None


class AnswerState(msgspec.Struct, frozen=True):
    """How far an answer is. `last_index` is the last piece that an unfinished `text` contains."""

    id: str
    reply_to: str
    status: AnswerStatus
    text: str
    last_index: int | None


class StopRequested(msgspec.Struct, frozen=True):
    """An answer after a request to stop it; `is_new` when this request was the first."""

    state: AnswerState
    is_new: bool
