"""What the statements on answers take and return. Pure.

How an answer ends, and as which message, is in `answer_ends.py`; its pieces are in `pieces.py`.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from streams.answers.pieces import Part, Piece
from streams.log.log import Appended

AnswerStatus = Literal["in_progress", "completed", "stopped", "failed"]


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """An answer's row. `id` and `end_seq` are the id and the seq of the message that ends it.

    `question_seq` and `reply_to` are the seq and the id of the message that is answered. `text` is
    what code before pieces stored; `worker_id` is the owner of its lease.
    """

    id: str
    project_id: str
    user_id: str
    question_seq: int
    reply_to: str
    worker_id: str
    end_seq: int | None = None
    is_streamed: bool = True
    is_outside: bool = False
    stop_requested_by: str | None = None
    regenerates: str | None = None
    text: str = ""


class Begun(msgspec.Struct, frozen=True):
    """A user's message and its answer; `is_ours` when this call created the answer."""

    appended: Appended
    answer: Answer
    is_ours: bool


class BegunReply(msgspec.Struct, frozen=True):
    """An answer to a message of the log, and how far it is; `is_new` when this call created it."""

    answer: Answer
    status: AnswerStatus
    received: int
    is_new: bool


class AnswerState(msgspec.Struct, frozen=True, kw_only=True):
    """How far an answer is. `index` is the last piece in `text` and `parts`, -1 for none.

    Once it has ended, text and parts are its message's, and `index` is -1.
    """

    answer: Answer
    status: AnswerStatus
    text: str
    parts: list[Part]
    index: int


class AnswerProgress(msgspec.Struct, frozen=True):
    """The last piece of an unfinished answer, stored `age_s` ago; -1 for none."""

    id: str
    project_id: str
    index: int
    is_streamed: bool
    age_s: float


class StopRequested(msgspec.Struct, frozen=True):
    """An answer after a request to stop it; `is_new` when this request was the first."""

    answer: Answer
    status: AnswerStatus
    is_new: bool


class Received(msgspec.Struct, frozen=True):
    """What became of pieces of an assistant outside: the next index, and whether to stop.

    `pieces` were stored, the first under `first_index` of the stream.
    """

    answer: Answer
    status: AnswerStatus
    next_index: int
    is_stop_requested: bool
    first_index: int = 0
    pieces: tuple[Piece, ...] = ()


class OutsideBounds(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds on answers of assistants outside, over all processes; 0 is off. Times in seconds."""

    per_project: int = 32
    per_worker: int = 64
    lease_s: float = 30.0
    max_text_bytes: int = 64 * 1024
