"""The middleware before all routes of the API: who calls, from which body.

A signature covers the body, so the body is read here, within its bounds of size and time.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

from litestar import Request
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, HTTPScope, Receive, Scope, Send

from service.body import BODY_TIMEOUT_S, is_json
from service.context import context_of
from service.errors import body_too_late, unsupported_media_type


class Authentication(ASGIMiddleware):
    """Puts the caller into `request.user`; there is no request without one."""

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        request: Request[Any, Any, Any] = Request(scope, receive, send)
        if request.method != "OPTIONS":
            try:
                async with asyncio.timeout(BODY_TIMEOUT_S):
                    # Kept in the scope by Litestar: the route decodes the same bytes.
                    body = await request.body()
            except TimeoutError:
                raise body_too_late() from None
            if body and not is_json(scope):
                raise unsupported_media_type()
            scope["user"] = context_of(request).authenticate(
                cast("HTTPScope", scope), body, query_token=False
            )
        await next_app(scope, receive, send)
