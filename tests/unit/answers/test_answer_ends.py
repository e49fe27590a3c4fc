"""docs/protocol.md §5: how an answer ends, and what its message says."""

from __future__ import annotations

import pytest

from streams.answers.answer_ends import Ending, decide


@pytest.mark.parametrize(
    ("reason", "stop_requested_by", "status", "response_data"),
    [
        (None, None, "completed", {"type": "answer", "replyTo": "q", "truncated": False}),
        # The text was complete before the stop was noticed.
        (None, "u", "completed", {"type": "answer", "replyTo": "q", "truncated": False}),
        ("broke", None, "failed", {"type": "answer_failed", "replyTo": "q", "reason": "broke"}),
        # Whoever asked for a stop gets one, whatever went wrong meanwhile.
        ("broke", "u", "stopped", {"type": "answer_stopped", "replyTo": "q", "stoppedBy": "u"}),
    ],
)
def test_an_answer_is_completed_else_stopped_if_asked_else_failed(
    reason: str | None,
    stop_requested_by: str | None,
    status: str,
    response_data: dict[str, object],
) -> None:
    """§5: `answer`, `answer_stopped` or `answer_failed`, with `replyTo`, and who or why."""
    ending = Ending(text="so far", reason=reason)
    end = decide(ending, reply_to="q", stop_requested_by=stop_requested_by)
    assert (end.status, end.response_data) == (status, response_data)
