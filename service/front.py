"""What stands before the framework's router: the two endpoints that carry the load.

The stream, because an open stream should keep nothing of a framework's request alive (and because
Litestar's `@asgi` routes cannot have path parameters: KeyError in 2.25). The single append, because
routing, injection and response objects cost more there than the append itself; the same append
stands in the router (`routes/messages.py`), which documents it and serves it without this file.
Everything else passes through.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Collection
from typing import cast

import msgspec
from litestar.enums import ScopeType
from litestar.types import ASGIApp, HTTPScope, Receive, Scope, Send

from service.body import is_json, read_body
from service.context import Context
from service.errors import (
    answer_error,
    invalid_body,
    method_not_allowed,
    store_unavailable,
    unsupported_media_type,
)
from service.lingering import lingering
from service.metrics import Metrics
from service.routes.messages import PostedMessage, append_message
from service.routes.stream import Headers, open_stream

_HOT = re.compile(r"/v1/projects/([^/]+)/chat/(stream|messages)/?")

_decode_message = msgspec.json.Decoder(PostedMessage).decode
_encode = msgspec.json.Encoder().encode


class Front:
    """An ASGI application around another one."""

    def __init__(
        self,
        app: ASGIApp,
        context: Callable[[], Context],
        metrics: Metrics,
        allowed_origins: Collection[str],
    ) -> None:
        self._app = app
        self._context = context
        self._metrics = metrics
        self._allowed_origins = frozenset(origin.encode() for origin in allowed_origins)

    # Not a coroutine: its frame would live as long as an open stream.
    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        # No path: the server's lifespan events.
        match = _HOT.fullmatch(scope.get("path", ""))
        if match is None:
            return self._routed(scope, receive, send)
        project_id, what = match.groups()
        http = cast("HTTPScope", scope)
        if what == "stream":
            return self._stream(project_id, http, receive, send)
        if http["method"] != "POST":
            return self._routed(scope, receive, send)
        return self._post(project_id, http, receive, send)

    async def _routed(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, lingering(receive, send))
        except asyncio.CancelledError:
            if scope["type"] != ScopeType.HTTP:
                raise
            await self._answer_ended(scope, send, [])

    async def _answer_ended(self, scope: HTTPScope, send: Send, headers: Headers) -> None:
        """Answer a request that the server has cancelled: it ends, and a store does not answer."""
        await answer_error(store_unavailable(), scope, send, self._metrics, headers)

    async def _stream(
        self, project_id: str, scope: HTTPScope, receive: Receive, send: Send
    ) -> None:
        headers = self._cors_headers(scope)
        try:
            if scope["method"] == "GET":
                await open_stream(self._context(), project_id, scope, receive, send, headers)
            elif scope["method"] == "OPTIONS" and headers:
                await _preflight(send, headers)
            else:
                raise method_not_allowed("GET")
        except Exception as error:  # noqa: BLE001 - answered, and logged where it is unexpected
            await answer_error(error, scope, send, self._metrics, headers)

    async def _post(self, project_id: str, scope: HTTPScope, receive: Receive, send: Send) -> None:
        headers = self._cors_headers(scope) if self._allowed_origins else []
        try:
            await self._append(project_id, scope, receive, send, headers)
        except asyncio.CancelledError:
            await self._answer_ended(scope, send, headers)
        except Exception as error:  # noqa: BLE001 - answered, and logged where it is unexpected
            late = lingering(receive, send)
            await answer_error(error, scope, late, self._metrics, headers)

    async def _append(
        self, project_id: str, scope: HTTPScope, receive: Receive, send: Send, headers: Headers
    ) -> None:
        context = self._context()
        body = await read_body(scope, receive)
        if body and not is_json(scope):
            raise unsupported_media_type()
        caller = context.authenticate(scope, body, query_token=False)
        try:
            posted = _decode_message(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise invalid_body(error) from None
        receipt = await append_message(context, caller, project_id, posted)
        answer = _encode(receipt)
        await send(
            {
                "type": "http.response.start",
                "status": 200 if receipt.duplicate else 201,
                "headers": [
                    (b"content-type", b"application/json"),
                    (b"content-length", b"%d" % len(answer)),
                    *headers,
                ],
            }
        )
        await send({"type": "http.response.body", "body": answer, "more_body": False})

    def _cors_headers(self, scope: HTTPScope) -> Headers:
        for name, value in scope["headers"]:
            if name == b"origin" and value in self._allowed_origins:
                return [
                    (b"access-control-allow-origin", value),
                    (b"access-control-allow-credentials", b"true"),
                    (b"access-control-expose-headers", b"X-Request-Id, Retry-After, ETag"),
                    (b"vary", b"Origin"),
                ]
        return []


async def _preflight(send: Send, headers: Headers) -> None:
    """Answer a browser that asks whether it may open a stream with headers of its own."""
    allowed = [
        (b"access-control-allow-methods", b"GET"),
        (b"access-control-allow-headers", b"Authorization, Last-Event-ID, X-Request-Id"),
        (b"access-control-max-age", b"600"),
        (b"content-length", b"0"),
    ]
    await send({"type": "http.response.start", "status": 204, "headers": [*headers, *allowed]})
    await send({"type": "http.response.body", "body": b"", "more_body": False})
