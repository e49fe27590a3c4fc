"""Sending error responses, through Litestar and as plain ASGI, and the id of each request.

Every failed request is counted and logged here, once. Which exception becomes which error is in
`error_mapping.py`, what an error looks like in `api_errors.py`.
"""

from __future__ import annotations

import logging
import random
import re
from collections.abc import Awaitable, Sequence
from typing import Any, Final

from litestar import Request, Response
from litestar.enums import ScopeType
from litestar.types import ASGIApp, ExceptionHandlersMap, Message, Receive, Scope, Send

from service.http.api_errors import ApiError, AuthenticationError
from service.http.error_mapping import to_api_error
from service.telemetry.metrics import Metrics
from streams.answers.answer_errors import TooManyAnswers

_log = logging.getLogger(__name__)

JSON: Final = "application/json"
SECURITY_HEADERS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)
"""Headers that every response gets, unless it sets its own."""
_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_SCOPE_KEY: Final = "seqstream.request_id"


def exception_handlers(metrics: Metrics) -> ExceptionHandlersMap:
    """Return Litestar's handler for all exceptions; it counts failed authentications."""

    def handle(request: Request[Any, Any, Any], exc: Exception) -> Response[bytes]:
        error, identity = _record(exc, request.scope, metrics)
        return Response(
            content=error.body(identity),
            status_code=error.status,
            headers={**error.headers(), "X-Request-Id": identity},
            media_type=JSON,
        )

    # Not by status: Litestar prefers such a handler to one of a class, and would bypass ours.
    return {Exception: handle}


async def answer_error(
    exc: Exception,
    scope: Scope,
    send: Send,
    metrics: Metrics,
    headers: Sequence[tuple[bytes, bytes]] = (),
) -> None:
    """Send the response to an exception outside of Litestar, with additional `headers`."""
    error, identity = _record(exc, scope, metrics)
    body = error.body(identity)
    own = {**error.headers(), "X-Request-Id": identity, "Content-Type": JSON}
    own["Content-Length"] = str(len(body))
    encoded = [(name.lower().encode(), value.encode()) for name, value in own.items()]
    await send(
        {
            "type": "http.response.start",
            "status": error.status,
            "headers": [*encoded, *headers],
        }
    )
    await send({"type": "http.response.body", "body": body, "more_body": False})


def _record(exc: Exception, scope: Scope, metrics: Metrics) -> tuple[ApiError, str]:
    error = to_api_error(exc)
    identity = request_id(scope)
    if isinstance(exc, AuthenticationError):
        metrics.auth_failures.labels(exc.reason).inc()
    elif isinstance(exc, TooManyAnswers):
        # A limit of the library; those of the service count where they refuse.
        metrics.rate_limited.inc()
    elif error.status == 500:
        # The path names a project and holds no message. The query may hold a token: left out.
        _log.error(
            "request failed",
            exc_info=exc,
            extra={"request_id": identity, "path": scope["path"]},
        )
    return error, identity


def request_id(scope: Scope) -> str:
    """Return the request's id: the client's `X-Request-Id` if it is usable, else a random one.

    Every call with one request's scope returns the same id.
    """
    known = scope["state"].get(_SCOPE_KEY)
    if isinstance(known, str):
        return known
    sent = [value for name, value in scope["headers"] if name == b"x-request-id"]
    if len(sent) == 1 and _REQUEST_ID.fullmatch(sent[0]):
        identity = sent[0].decode()
    else:
        # It is no secret, so it needs no randomness from the system.
        identity = f"{random.getrandbits(128):032x}"
    scope["state"][_SCOPE_KEY] = identity
    return identity


def with_request_id(app: ASGIApp) -> ASGIApp:
    """Wrap an ASGI application: each response gets `X-Request-Id` and the `SECURITY_HEADERS`.

    Headers that a response has already are not changed.
    """

    # Not a coroutine: its frame would stay in memory as long as an open stream.
    def with_id(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] != ScopeType.HTTP:
            return app(scope, receive, send)
        scope.setdefault("state", {})
        identity = request_id(scope).encode()

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message["headers"])
                own = {name.lower() for name, _ in headers}
                added = ((b"x-request-id", identity), *SECURITY_HEADERS)
                headers += [each for each in added if each[0] not in own]
                message["headers"] = headers
            await send(message)

        return app(scope, receive, send_with_id)

    return with_id
