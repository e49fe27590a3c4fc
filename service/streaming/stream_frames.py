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
    # A common reader takes Latin-1 where no charset is named.
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store, no-transform"),
    (b"x-accel-buffering", b"no"),
]

FIRST_SEQ: Final = 1
"""The first seq of every log: nothing is removed from one."""

_encode = msgspec.json.encode


def opening(
    project_id: str,
    connection_id: str,
    *,
    cursor: int | None,
    position: int,
    head: int,
    truncated: bool,
    source: Source,
    retry_ms: int,
) -> bytes:
    """Return `stream.open`, with the reconnect delay and the seq that the stream starts after.

    `position` is that seq: a client that is cut off before its first message comes back with it.
    `cursor` is what the client sent, None for nothing usable.
    """
    data = {
        "projectId": project_id,
        "connectionId": connection_id,
        "cursor": cursor,
        "headSeq": head,
        "truncated": truncated,
        "source": source,
    }
    return sse.control_frame("stream.open", _encode(data), cursor=position, retry_ms=retry_ms)


def reset(project_id: str, reason: ResetReason, head: int, retry_ms: int) -> bytes:
    """Return `stream.reset`: the client's cursor is not usable, and is replaced by the head."""
    data = {"projectId": project_id, "reason": reason, "firstSeq": FIRST_SEQ, "headSeq": head}
    return sse.control_frame("stream.reset", _encode(data), cursor=head, retry_ms=retry_ms)


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


def closing(reason: CloseReason, retry_ms: int) -> bytes:
    """Return `stream.closing`, the last frame, with a reconnect delay that differs per client."""
    # After these two a reconnect would be refused: the client has to get a new token first.
    reconnect = reason not in ("token_expired", "access_revoked")
    if reason == "shutdown":
        retry_ms = random.randint(200, RETRY_SPREAD_MS)
    else:
        retry_ms = random.randint(max(1, retry_ms // 2), retry_ms + retry_ms // 2)
    data = _encode({"reason": reason, "reconnect": reconnect})
    return sse.control_frame("stream.closing", data, cursor=None, retry_ms=retry_ms)


def refusal(code: str, retry_after_ms: int, cursor: int | None) -> bytes:
    """Return a whole stream that refuses: `stream.refused` with the cursor that the client sent.

    A client that takes its id from the last block it saw would lose its cursor without it.
    """
    data = _encode({"code": code, "retryAfterMs": retry_after_ms})
    return sse.control_frame("stream.refused", data, cursor=cursor, retry_ms=retry_after_ms)
