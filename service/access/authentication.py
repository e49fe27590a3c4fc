"""The middleware that authenticates requests to routes, and bounds the reads of each user.

The stream and the direct append do not pass through it: they call `callers.py` themselves.
"""

from __future__ import annotations

import functools
from typing import Any, Self, cast

from litestar import Request
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, HTTPScope, Receive, Scope, Send

from service.access.callers import Callers
from service.access.read_slots import ReadSlots
from service.http.api_errors import rate_limited, unsupported_media_type
from service.http.body import is_json, read_framework_body
from service.http.server_connection import server_connection_of
from service.telemetry.metrics import Metrics

_READ_RETRY_S = 1.0
_READS = ("GET", "HEAD")


class Authentication(ASGIMiddleware):
    """Sets `request.user` to the verified caller; other requests are refused."""

    def __init__(self, callers: Callers, reads: ReadSlots, metrics: Metrics) -> None:
        self._callers = callers
        self._reads = reads
        self._metrics = metrics

    def __deepcopy__(self, memo: object) -> Self:
        """Return itself: Litestar deep-copies a router, and the parts of the service are shared."""
        return self

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Pass on the request of a verified caller.

        Raises:
            AuthenticationError: the credentials are missing or not valid.
            ApiError: 415 for a body that is not JSON, 429 for too many reads at once.
        """
        request: Request[Any, Any, Any] = Request(scope, receive, send)
        if request.method == "OPTIONS":
            await next_app(scope, receive, send)
            return
        http = cast("HTTPScope", scope)
        caller, body = await self._callers.read(
            http, lambda: read_framework_body(request), query_token=False
        )
        if body and not is_json(scope):
            raise unsupported_media_type()
        scope["user"] = caller
        if request.method not in _READS:
            await next_app(scope, receive, send)
            return
        if not self._reads.acquire(caller.user_id):
            self._metrics.rate_limited.inc()
            raise rate_limited(_READ_RETRY_S, "Too many reads at once")
        release = functools.partial(self._reads.release, caller.user_id)
        try:
            await next_app(scope, receive, send)
        finally:
            # A response holds memory until its client has taken it.
            connection = server_connection_of(scope)
            if connection is None:
                release()
            else:
                connection.when_taken(release)
