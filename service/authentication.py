"""The middleware before all routes of `/v1` but the stream: who calls, from which body.

A signature covers the body, so the body is read here, within its bounds of size and time.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

from litestar import Request
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, HTTPScope, Receive, Scope, Send

from service.context import context_of
from service.errors import body_too_late, unsupported_media_type

_BODY_TIMEOUT_S = 20.0


class Authentication(ASGIMiddleware):
    """Puts the caller into `request.user`; there is no request without one."""

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        request: Request[Any, Any, Any] = Request(scope, receive, send)
        if request.method != "OPTIONS":
            try:
                async with asyncio.timeout(_BODY_TIMEOUT_S):
                    body = await request.body()
            except TimeoutError:
                raise body_too_late() from None
            # Any site may post a form with our cookie, but not JSON: so nothing else is taken.
            if body and not _is_json(scope):
                raise unsupported_media_type()
            scope["user"] = context_of(request).authenticate(
                cast("HTTPScope", scope), body, query_token=False
            )
        await next_app(scope, receive, send)


def _is_json(scope: Scope) -> bool:
    types = [value for name, value in scope["headers"] if name == b"content-type"]
    return len(types) == 1 and types[0].split(b";")[0].strip().lower() == b"application/json"
