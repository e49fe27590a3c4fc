"""How an answer ends: in_progress → completed, stopped or failed, and the message that says so.

Pure. The row and its lock are in `answer_rows.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from streams.answers.answer_values import Answer
from streams.answers.pieces import AnswerText, Part
from streams.model.events import NewMessage, PreparedMessage, prepare_answer

EndStatus = Literal["completed", "stopped", "failed"]

_TYPES: dict[EndStatus, str] = {
    "completed": "answer",
    "stopped": "answer_stopped",
    "failed": "answer_failed",
}


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """The end that a writer proposes: what was written, and why it is not the whole answer.

    Without a `reason` the answer is complete. `truncated`: text or parts did not fit their bounds.
    `text` and `parts` are what was stored, if None. `stopped_by` is who stopped it, if that was not
    asked of the row.
    """

    text: str | None = None
    parts: Sequence[Part] | None = None
    reason: str | None = None
    truncated: bool = False
    stopped_by: str | None = None
    metadata: Mapping[str, object] | None = None


class End(msgspec.Struct, frozen=True):
    """The end that is committed: the answer's status, and `response_data` of its message."""

    status: EndStatus
    response_data: dict[str, object]


def decide(ending: Ending, *, reply_to: str, stop_requested_by: str | None) -> End:
    """Return how an answer ends whose row says who asked it to stop.

    A complete text stays an answer, even if a stop came just before its end. An incomplete one is
    stopped when that was asked for, whatever else went wrong, and failed otherwise.
    """
    data: dict[str, object] = {"replyTo": reply_to}
    stopped_by = stop_requested_by or ending.stopped_by
    status: EndStatus
    if ending.reason is None:
        status = "completed"
        data["truncated"] = ending.truncated
    elif stopped_by is not None:
        status = "stopped"
        data["stoppedBy"] = stopped_by
    else:
        status = "failed"
        data["reason"] = ending.reason
    return End(status, {"type": _TYPES[status], **data})


def message_of(answer: Answer, ending: Ending, end: End, stored: AnswerText) -> PreparedMessage:
    """Return the message that ends an answer of which `stored` is kept in the log's tables.

    Raises:
        InvalidInput, PayloadTooLarge: it cannot be a message.
    """
    text = ending.text
    if text is None:
        text = answer.text if stored.is_empty else stored.text
    parts = stored.parts if ending.parts is None else ending.parts
    if ending.text is not None:
        # What replaces the text may be shorter.
        parts = [Part(each.kind, min(each.offset, len(text)), each.data) for each in parts]
    response_data = {**end.response_data, "parts": parts} if parts else end.response_data
    metadata: dict[str, object] = {**(ending.metadata or {}), "response_data": response_data}
    if answer.regenerates is not None:
        metadata["regenerates"] = answer.regenerates
    # The text so far: none when the answer was stopped or failed before its first piece.
    return prepare_answer(
        NewMessage(
            user_id=answer.user_id,
            text=text,
            type="assistant",
            mode="plan",
            actor_type="assistant",
            parent_id=answer.reply_to,
            metadata=metadata,
            message_id=answer.id,
        )
    )
