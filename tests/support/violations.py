"""What a checker can find wrong, and where. Data only.

`checker.py`, `build_checker.py` and `answer_checker.py` find it.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Kind(StrEnum):
    """What can be wrong. Every violation has one kind, so that kinds can be counted."""

    LOG_HOLE = "log_hole"  # G1: the log's seqs are not 1..head
    LOG_REPEAT = "log_repeat"  # G5: a post (or an id, or a seq) is in the log twice
    INVENTED = "invented"  # a message that nobody posted, or that is not in the log
    CHANGED = "changed"  # the content differs from what was posted, or from the log
    ACK_MISSING = "ack_missing"  # acknowledged and not in the log
    ACK_TWICE = "ack_twice"  # one post acknowledged with two results
    ACK_WRONG = "ack_wrong"  # acknowledged with a seq or id that differs from the log's
    LOST = "lost"  # never received and never announced as not sent
    UNANNOUNCED = "unannounced"  # skipped on one connection and not announced; received later
    REPEATED = "repeated"  # received twice on a connection, or at or before its cursor
    REORDERED = "reordered"  # received after a higher seq on the same connection
    MISANNOUNCED = "misannounced"  # a control event or an SSE id contradicts the rest
    BUILD_UNENDED = "build_unended"  # §8: an acknowledged build without its end message
    BUILD_REPEAT = "build_repeat"  # §8: a build that ended twice
    BUILD_WRONG = "build_wrong"  # §8: an end or a last status that differs from the build's
    STATUS_LOST = "status_lost"  # G6, G7: a change of status that a client never received
    ANSWER_UNENDED = "answer_unended"  # §5: an acknowledged answer without its message
    ANSWER_REPEAT = "answer_repeat"  # §5: an answer with two messages, a question with two answers
    ANSWER_WRONG = "answer_wrong"  # §5: an end that differs from what its writer and members did
    STOP_LOST = "stop_lost"  # §5: an acknowledged stop, and the answer ended as failed
    PIECE_LOST = "piece_lost"  # §5: a piece acknowledged to its writer is not in the message
    PIECE_CHANGED = "piece_changed"  # §6: a piece that two clients received differently
    STATE_WRONG = "state_wrong"  # §6: an `answer.state` that differs from the pieces it stands for
    SHOWN_LOST = "shown_lost"  # §5: a client showed what the message does not begin with
    SHOWN_LATE = "shown_late"  # §6: a client that was there throughout did not see every piece


class Violation(msgspec.Struct, frozen=True):
    """One thing that is wrong, and where. `connection` counts from 0, or is None."""

    kind: Kind
    seq: int | None
    detail: str
    client: str | None = None
    connection: int | None = None

    def __str__(self) -> str:
        where = "" if self.client is None else f" at {self.client}"
        if self.connection is not None:
            where += f" connection {self.connection}"
        return f"{self.kind}: seq {self.seq}{where}: {self.detail}"
