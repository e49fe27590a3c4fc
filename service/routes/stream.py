"""`GET /v1/projects/{projectId}/chat/stream`: who may open a stream, and from where.

Only what a client must not retry is an HTTP error; what passes with time is refused in-band,
because EventSource gives up for ever on any status but 200.
"""

from __future__ import annotations

import uuid
from urllib.parse import parse_qsl

from litestar.types import HTTPScope, Receive, Scope, Send

from service.auth import Caller
from service.authentication import authenticate
from service.body import read_body
from service.connection import STREAM_HEADERS, Connection, ResetReason, StreamTimes, refusal
from service.context import Context
from service.errors import (
    ApiError,
    rate_limited,
    store_unavailable,
    to_api_error,
)
from service.wire import wire_for
from streams.errors import LogUnavailable, ProjectNotFound, Unavailable
from streams.ids import InvalidCursor, check_project_id, parse_cursor
from streams.tail import Tail

Headers = list[tuple[bytes, bytes]]

_MAX_BODY_BYTES = 64 * 1024
_DRAINING_RETRY_S = 1.0
_LIMIT_RETRY_S = 5.0


async def open_stream(
    context: Context,
    project_id: str,
    scope: HTTPScope,
    receive: Receive,
    send: Send,
    headers: Headers,
) -> None:
    """Serve a stream until it ends. `headers` go along with those of the stream.

    Raises whatever the client must not retry; `service/errors.py` says what it is told.
    """
    # A GET should have no body, but a signature covers it.
    caller, _ = await authenticate(
        context,
        scope,
        lambda: read_body(scope, receive, limit_bytes=_MAX_BODY_BYTES),
        query_token=True,
    )
    check_project_id(project_id)
    try:
        await context.access.require(caller, project_id, "read")
        if context.streams.draining:
            raise store_unavailable(_DRAINING_RETRY_S)
        refused = context.streams.slots.acquire(project_id, caller.user_id)
        if refused is not None:
            context.metrics.rate_limited.inc()
            raise rate_limited(_LIMIT_RETRY_S, f"Too many open streams (limit of the {refused})")
    except (Unavailable, ApiError) as error:
        await _refuse(context, scope, send, to_api_error(error), headers)
        return
    try:
        await _serve(context, caller, project_id, scope, receive, send, headers)
    finally:
        context.streams.slots.release(project_id, caller.user_id)


async def _serve(
    context: Context,
    caller: Caller,
    project_id: str,
    scope: HTTPScope,
    receive: Receive,
    send: Send,
    headers: Headers,
) -> None:
    try:
        tail = await context.log.tails.acquire(project_id)
    except (Unavailable, ProjectNotFound) as error:
        await _refuse(context, scope, send, to_api_error(error), headers)
        return
    broadcast = context.streams.enter(tail)
    try:
        cursor, reset = await _cursor(context, tail, scope)
        # Before the connection attaches: what changes from here on, the replay or live will show.
        builds = await context.log.build_watch.unfinished(tail)
        connection = Connection(
            wire_for(scope, receive, send, dead_after_s=context.settings.slow_client_s),
            broadcast,
            context.log.reader(tail, tail.last_seq if cursor is None else cursor),
            context.metrics,
            StreamTimes(int(context.settings.retry_ms), context.settings.slow_client_s),
            connection_id=uuid.uuid4().hex,
            project_id=project_id,
            user_id=caller.user_id,
            cursor=cursor,
            reset=reset,
            expires_at_s=caller.expires_at_s,
            headers=headers,
            builds=builds,
        )
        try:
            await connection.prepare()
        except Unavailable as error:
            await _refuse(context, scope, send, to_api_error(error), headers)
            return
        await context.streams.serve(connection)
    finally:
        context.streams.leave(tail)
        context.log.tails.release(tail)


async def _cursor(
    context: Context, tail: Tail, scope: HTTPScope
) -> tuple[int | None, ResetReason | None]:
    """Return the cursor, or why the one that was sent is not usable."""
    text = _cursor_text(scope)
    if not text:
        return None, None
    try:
        cursor = parse_cursor(text)
    except InvalidCursor:
        return None, "invalid_cursor"
    if cursor > tail.last_seq:
        # Perhaps this process is late; the log knows.
        try:
            head = await context.log.head(tail.project_id)
        except LogUnavailable:
            return cursor, None
        if cursor > head:
            return None, "cursor_ahead"
    return cursor, None


def _cursor_text(scope: HTTPScope) -> str:
    """The header wins: a reconnecting EventSource repeats its old URL."""
    for name, value in scope["headers"]:
        if name == b"last-event-id" and value:
            return value.decode("latin-1")
    query = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
    return query.get("last_event_id") or query.get("from_seq") or ""


async def _refuse(
    context: Context, scope: Scope, send: Send, error: ApiError, headers: Headers
) -> None:
    accepts_stream = any(
        name == b"accept" and b"text/event-stream" in value for name, value in scope["headers"]
    )
    if error.retry_after_s is None or not accepts_stream:
        raise error
    context.metrics.sse_deliveries.labels("stream.refused").inc()
    body = refusal(error.code, int(error.retry_after_s * 1000))
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [
                *STREAM_HEADERS,
                *headers,
                (b"content-length", str(len(body)).encode()),
                (b"connection", b"close"),
            ],
        }
    )
    await send({"type": "http.response.body", "body": body, "more_body": False})
