"""Who calls, before the body is read where that can be known; and how many reads a user has.

A token says who calls by itself. A signature covers the body: only its form, its clock and its
user id can be looked at before, and the body is read within its bounds of size and time.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable
from typing import Any, cast

from litestar import Request
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, HTTPScope, Receive, Scope, Send

from service.access.credentials import (
    Caller,
    SignedCredentials,
    check_before_body,
    read_credentials,
)
from service.context import Context, context_of
from service.http.api_errors import body_too_late, rate_limited, unsupported_media_type
from service.http.body import BODY_TIMEOUT_S, body_is_here, is_json, protocol_of

_READ_RETRY_S = 1.0
_READS = ("GET", "HEAD")


async def authenticate(
    context: Context,
    scope: HTTPScope,
    read: Callable[[], Awaitable[bytes]],
    *,
    query_token: bool,
) -> tuple[Caller, bytes]:
    """Return the caller and the body. Nothing of a body is read for who is not known.

    Raises:
        AuthenticationError: the caller is not known.
        ApiError: what `read` raises.
    """
    credentials = read_credentials(scope["headers"], scope["query_string"], query_token=query_token)
    if isinstance(credentials, SignedCredentials):
        check_before_body(credentials, time.time())
        body = await read()
        return context.authenticate(scope, body, query_token=query_token), body
    caller = context.authenticate(scope, b"", query_token=query_token)
    return caller, await read()


class Authentication(ASGIMiddleware):
    """Puts the caller into `request.user`; there is no request without one."""

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        request: Request[Any, Any, Any] = Request(scope, receive, send)
        if request.method == "OPTIONS":
            await next_app(scope, receive, send)
            return
        http = cast("HTTPScope", scope)
        # Litestar keeps the body in the scope: the route decodes the same bytes.
        caller, body = await authenticate(
            context_of(request), http, lambda: _in_time(http, request.body), query_token=False
        )
        if body and not is_json(scope):
            raise unsupported_media_type()
        scope["user"] = caller
        if request.method not in _READS:
            await next_app(scope, receive, send)
            return
        context, protocol = context_of(request), protocol_of(scope)
        if not context.reads.acquire(caller.user_id):
            context.metrics.rate_limited.inc()
            raise rate_limited(_READ_RETRY_S, "Too many reads at once")
        release = functools.partial(context.reads.release, caller.user_id)
        try:
            await next_app(scope, receive, send)
        finally:
            if protocol is None:
                release()
            else:
                protocol.when_taken(release)


async def _in_time(scope: HTTPScope, read: Callable[[], Awaitable[bytes]]) -> bytes:
    if body_is_here(scope):
        # Nearly every request's: a timer for what does not wait costs as much as reading it.
        return await read()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            return await read()
    except TimeoutError:
        raise body_too_late() from None
