"""The `stream.*` events of one connection as frames, and the reasons they name. Pure.

docs/protocol.md §6. How a frame is written as bytes is in `streams/model/sse.py`; when these are
sent is in `connection.py`.
"""

from __future__ import annotations

import random
from typing import Final, Literal

import msgspec

from streams.model import sse
from streams.tail.reader import Source

CloseReason = Literal["shutdown", "token_expired", "access_revoked", "slow_client", "max_age"]
ResetReason = Literal["invalid_cursor", "cursor_ahead"]

RETRY_SPREAD_MS: Final = 3000
"""Clients of a process that shuts down reconnect spread over this time."""

STREAM_HEADERS: Final = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-store, no-transform"),
    (b"x-accel-buffering", b"no"),
]

_encode = msgspec.json.encode


def opening(
    project_id: str,
    connection_id: str,
    *,
    cursor: int | None,
    head: int,
    truncated: bool,
    source: Source,
    retry_ms: int,
) -> list[bytes]:
    """Return the first frames: the reconnect delay and cursor, then `stream.open`."""
    data = {
        "projectId": project_id,
        "connectionId": connection_id,
        "cursor": cursor,
        "headSeq": head,
        "truncated": truncated,
        "source": source,
    }
    return [
        sse.priming(retry_ms, head if cursor is None else cursor),
        sse.event_frame("stream.open", _encode(data)),
    ]


def reset(project_id: str, reason: ResetReason, head: int) -> bytes:
    """Return `stream.reset`: the cursor is not usable."""
    data = {"projectId": project_id, "reason": reason, "headSeq": head}
    return sse.event_frame("stream.reset", _encode(data))


def replay_end(project_id: str, *, last_replayed: int, live_from: int) -> bytes:
    """Return `replay.end`: the messages between the two seqs were not sent."""
    data = {
        "message": "Older messages were not sent; fetch them from the history",
        "projectId": project_id,
        "lastReplayedSeq": last_replayed,
        "liveFromSeq": live_from,
        "hasMore": True,
    }
    return sse.event_frame("replay.end", _encode(data))


def live(project_id: str, head: int) -> bytes:
    """Return `stream.live`: what follows is live."""
    return sse.event_frame("stream.live", _encode({"projectId": project_id, "headSeq": head}))


def closing(reason: CloseReason, retry_ms: int) -> list[bytes]:
    """Return the last frames: a reconnect delay, then `stream.closing`."""
    # After these two a reconnect would be refused: the client has to get a new token first.
    reconnect = reason not in ("token_expired", "access_revoked")
    if reason == "shutdown":
        retry_ms = random.randint(200, RETRY_SPREAD_MS)
    data = _encode({"reason": reason, "reconnect": reconnect})
    return [sse.retry(retry_ms), sse.event_frame("stream.closing", data)]


def refusal(code: str, retry_after_ms: int) -> bytes:
    """Return a whole stream that refuses: a reconnect delay and `stream.refused`."""
    return sse.retry(retry_after_ms) + sse.event_frame(
        "stream.refused", _encode({"code": code, "retryAfterMs": retry_after_ms})
    )
