"""What stands before the framework's router: the stream, and the refusal of odd paths.

An open stream should keep nothing of a framework's request alive (and Litestar's `@asgi` routes
cannot have path parameters: KeyError in 2.25). Everything else passes through.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Collection
from typing import cast

from litestar.enums import ScopeType
from litestar.types import ASGIApp, HTTPScope, Receive, Scope, Send

from service.context import Context
from service.http.api_errors import method_not_allowed, not_found, store_unavailable
from service.http.error_answers import answer_error
from service.http.targets import is_canonical
from service.routes.stream import Headers, open_stream
from service.telemetry.metrics import Metrics

_STREAM = re.compile(r"/v1/projects/([^/]+)/chat/stream/?")


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
        path = scope.get("path", "")
        if path and not is_canonical(cast("HTTPScope", scope)["raw_path"]):
            return answer_error(not_found(), scope, send, self._metrics)
        match = _STREAM.fullmatch(path)
        if match is None:
            return self._routed(scope, receive, send)
        return self._stream(match[1], cast("HTTPScope", scope), receive, send)

    async def _routed(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except asyncio.CancelledError:
            if scope["type"] != ScopeType.HTTP:
                raise
            # The server has cancelled it: it ends, and a store does not answer.
            await answer_error(store_unavailable(), scope, send, self._metrics)

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
