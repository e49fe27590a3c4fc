"""How an answer ends: in_progress → completed, stopped or failed, and the message that says so.

Pure. The row and its lock are in `answer_rows.py`.
"""

from __future__ import annotations

from typing import Literal

import msgspec

EndStatus = Literal["completed", "stopped", "failed"]

_TYPES: dict[EndStatus, str] = {
    "completed": "answer",
    "stopped": "answer_stopped",
    "failed": "answer_failed",
}


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """The end that a writer proposes: the text so far, and why it is not the whole answer.

    Without a `reason` the answer is complete. `truncated` when the text was cut at its bound.
    """

    text: str
    reason: str | None = None
    truncated: bool = False


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
    status: EndStatus
    if ending.reason is None:
        status = "completed"
        data["truncated"] = ending.truncated
    elif stop_requested_by is not None:
        status = "stopped"
        data["stoppedBy"] = stop_requested_by
    else:
        status = "failed"
        data["reason"] = ending.reason
    return End(status, {"type": _TYPES[status], **data})
