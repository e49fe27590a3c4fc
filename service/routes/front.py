"""The ASGI application in front of Litestar's: it serves the stream and refuses odd paths.

The stream is served here because an open stream should keep no Litestar request in memory (and
Litestar's `@asgi` routes cannot have path parameters: KeyError in 2.25). All other requests go on
to Litestar's router.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import cast

from litestar.enums import ScopeType
from litestar.types import ASGIApp, HTTPScope, Receive, Scope, Send

from service.context import Context
from service.http.api_errors import method_not_allowed, not_found, store_unavailable
from service.http.cors import Headers, StreamCors
from service.http.error_answers import answer_error
from service.http.targets import is_canonical
from service.routes.stream import open_stream
from service.telemetry.metrics import Metrics

_STREAM = re.compile(r"/v1/projects/([^/]+)/chat/stream/?")


class Front:
    """Serves the stream, and passes other requests to `app`."""

    def __init__(
        self,
        app: ASGIApp,
        context: Callable[[], Context],
        metrics: Metrics,
        cors: StreamCors,
    ) -> None:
        self._app = app
        self._context = context
        self._metrics = metrics
        self._cors = cors

    # Not a coroutine: an open stream would keep its frame in memory.
    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        # The server's lifespan events have no path.
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
            # The server is ending and cancelled it because a store does not answer.
            await answer_error(store_unavailable(), scope, send, self._metrics)

    async def _stream(
        self, project_id: str, scope: HTTPScope, receive: Receive, send: Send
    ) -> None:
        headers = self._cors.response_headers(scope)
        try:
            if scope["method"] == "GET":
                await open_stream(self._context(), project_id, scope, receive, send, headers)
            elif scope["method"] == "OPTIONS" and headers:
                await _preflight(send, headers)
            else:
                raise method_not_allowed("GET")
        except Exception as error:  # noqa: BLE001 - answered; logged if unexpected
            await answer_error(error, scope, send, self._metrics, headers)


async def _preflight(send: Send, headers: Headers) -> None:
    """Answer a browser that asks whether a page may open a stream with headers of its own."""
    allowed = StreamCors.preflight_headers(headers)
    await send({"type": "http.response.start", "status": 204, "headers": allowed})
    await send({"type": "http.response.body", "body": b"", "more_body": False})
