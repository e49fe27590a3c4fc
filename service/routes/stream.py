"""`GET /v1/projects/{projectId}/chat/stream`: checks who may open a stream, and its cursor.

Only errors that a client must not retry are HTTP errors. A temporary refusal is sent as a stream,
because EventSource never reconnects after a status other than 200.
"""

from __future__ import annotations

import asyncio
import uuid
from functools import partial

from litestar.types import HTTPScope, Receive, Scope, Send

from service.access.identity import Caller
from service.context import Context
from service.http.api_errors import ApiError, store_unavailable
from service.http.body import read_body
from service.http.cors import Headers
from service.http.error_mapping import to_api_error
from service.http.wire import wire_for
from service.routes.stream_query import StreamQuery, read_stream_query
from service.streaming.connection import Connection, StreamRequest
from service.streaming.stream_frames import STREAM_HEADERS, ResetReason, refusal
from service.streaming.stream_writer import StreamTimes
from streams.model.errors import LogRestored, LogUnavailable, ProjectNotFound, Unavailable
from streams.model.ids import InvalidCursor, check_project_id, parse_cursor
from streams.tail.tail import Tail

_MAX_BODY_BYTES = 64 * 1024
_DRAINING_RETRY_S = 1.0
# How long the log may take to answer whether a cursor is ahead of it.
_PATIENCE_S = 0.25


async def open_stream(
    context: Context,
    project_id: str,
    scope: HTTPScope,
    receive: Receive,
    send: Send,
    headers: Headers,
) -> None:
    """Serve a stream until it ends. `headers` are added to the response's.

    Raises the errors that a client must not retry; `service/http/error_mapping.py` maps them.
    """
    # A GET should have no body, but a signature covers it.
    caller, _ = await context.callers.read(
        scope,
        lambda: read_body(scope, receive, limit_bytes=_MAX_BODY_BYTES),
        query_token=True,
    )
    check_project_id(project_id)
    query = read_stream_query(scope["headers"], scope["query_string"])
    opening = _Opening(context, project_id, caller, query)
    refused: ApiError | None = None
    try:
        connection = await opening.connect_in_time(scope, receive, send, headers)
        await context.streams.serve(connection)
    except (Unavailable, LogRestored, ProjectNotFound, ApiError) as error:
        refused = store_unavailable() if isinstance(error, LogRestored) else to_api_error(error)
    finally:
        opening.release()
    if refused is not None:
        await _refuse(context, scope, send, refused, query, headers)


class _Opening:
    """The resources of one stream: acquired in order when it opens, released once at its end."""

    __slots__ = (
        "_caller",
        "_context",
        "_has_slot",
        "_is_in_group",
        "_project_id",
        "_query",
        "_tail",
    )

    def __init__(
        self, context: Context, project_id: str, caller: Caller, query: StreamQuery
    ) -> None:
        self._context = context
        self._project_id = project_id
        self._caller = caller
        self._query = query
        self._has_slot = False
        self._tail: Tail | None = None
        self._is_in_group = False

    async def connect_in_time(
        self, scope: HTTPScope, receive: Receive, send: Send, headers: Headers
    ) -> Connection:
        """Return a connection that has read the first of what it missed.

        Raises the error that refuses the stream; `LogUnavailable` when the servers take too long.
        """
        try:
            # A timeout cancels no shared work: it all runs in tasks of its own.
            async with asyncio.timeout(self._context.settings.open_timeout_s):
                return await self._connect(scope, receive, send, headers)
        except TimeoutError:
            raise LogUnavailable("the stream could not be opened in time") from None

    async def _connect(
        self, scope: HTTPScope, receive: Receive, send: Send, headers: Headers
    ) -> Connection:
        context, project_id, user_id = self._context, self._project_id, self._caller.user_id
        await context.access.require(self._caller, project_id, "read")
        member_since = context.access.confirmed_at(project_id, user_id)
        if context.streams.draining:
            raise store_unavailable(_DRAINING_RETRY_S)
        context.streams.take_place(project_id, user_id)
        self._has_slot = True
        self._tail = tail = await context.log.tails.acquire(project_id)
        broadcast = context.streams.enter(tail)
        self._is_in_group = True
        query = self._query
        cursor, reset = await _cursor(context, tail, query.cursor)
        # Before the connection attaches: later changes are shown by the replay or live.
        builds = await context.log.build_watch.unfinished(tail)
        await context.log.answer_watch.ready(tail)
        settings = context.settings
        start = cursor
        if query.tail is not None and not query.cursor:
            # Without an await before the connection reads the head: at most `tail` are missed.
            start = max(0, tail.last_seq - query.tail)
        connection = Connection(
            wire_for(scope, receive, send, dead_after_s=settings.slow_client_s),
            broadcast,
            context.log.reader(tail, tail.last_seq if start is None else start),
            context.metrics,
            StreamTimes(int(settings.retry_ms), settings.slow_client_s),
            StreamRequest(
                connection_id=uuid.uuid4().hex,
                project_id=project_id,
                user_id=user_id,
                cursor=cursor,
                start=start,
                heartbeat_s=query.heartbeat_s or settings.heartbeat_s,
                reset=reset,
                expires_at_s=self._caller.expires_at_s,
                member_since=member_since,
                headers=headers,
                builds=builds,
                answers=partial(context.log.answer_watch.frames, tail),
                as_admin=self._caller.has_scope("admin"),
            ),
        )
        await connection.prepare()
        return connection

    def release(self) -> None:
        """Release everything, in the reverse order."""
        context = self._context
        if self._tail is not None:
            if self._is_in_group:
                context.streams.leave(self._tail)
            context.log.tails.release(self._tail)
        if self._has_slot:
            context.streams.slots.release(self._project_id, self._caller.user_id)


async def _cursor(context: Context, tail: Tail, text: str) -> tuple[int | None, ResetReason | None]:
    """Return the cursor, or why the given one is not usable."""
    if not text:
        return None, None
    try:
        cursor = parse_cursor(text)
    except InvalidCursor:
        return None, "invalid_cursor"
    if cursor > tail.last_seq:
        # This process may be behind, so the log decides. The first answer may come from a shared
        # query that began before the cursor's message was committed, hence a second one.
        for _ in range(2):
            try:
                async with asyncio.timeout(_PATIENCE_S):
                    head = await context.log.tiers.head(tail.project_id)
            except (LogUnavailable, TimeoutError):
                return cursor, None
            if cursor <= head:
                return cursor, None
        return None, "cursor_ahead"
    return cursor, None


async def _refuse(
    context: Context,
    scope: Scope,
    send: Send,
    error: ApiError,
    query: StreamQuery,
    headers: Headers,
) -> None:
    accepts_stream = any(
        name == b"accept" and b"text/event-stream" in value for name, value in scope["headers"]
    )
    if error.retry_after_s is None or not accepts_stream:
        raise error
    context.metrics.sse_deliveries.labels("stream.refused").inc()
    try:
        cursor = parse_cursor(query.cursor)
    except InvalidCursor:
        cursor = None
    body = refusal(error.code, int(error.retry_after_s * 1000), cursor)
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
