"""Reading a whole request body within bounds of size and time, and checking its media type.

Every wait for a body is here: the routes that are ASGI handlers read with `read_body`, those of
the framework with `read_framework_body`. The fast path takes only requests whose body has been
received (`protocol_serving.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from litestar import Request
from litestar.types import HTTPScope, Receive, Scope

from service.http.api_errors import body_too_late, ended_too_early, payload_too_large
from service.http.deadlines import BODY_TIMEOUT_S
from service.http.server_connection import server_connection_of

MAX_BODY_BYTES = 1024 * 1024


async def read_body(
    scope: HTTPScope, receive: Receive, *, limit_bytes: int = MAX_BODY_BYTES
) -> bytes:
    """Return the body.

    Raises:
        ApiError: 413 as soon as the body is known to be too large, before it is read whole; 408
            if it does not arrive within `BODY_TIMEOUT_S`; 400 if the client goes away.
    """
    for name, value in scope["headers"]:
        if name == b"content-length" and int(value) > limit_bytes:
            raise payload_too_large(limit_bytes)
    return await _in_time(scope, lambda: _read(receive, limit_bytes))


async def read_framework_body(request: Request[Any, Any, Any]) -> bytes:
    """Return the body of a request of Litestar, which keeps it: its route decodes the same bytes.

    Litestar bounds the size by the application's `request_max_body_size`.

    Raises:
        ApiError: 408 if the body does not arrive within `BODY_TIMEOUT_S`.
        HTTPException: Litestar's 413, or its 500 if the client goes away.
    """
    return await _in_time(request.scope, request.body)


async def _in_time(scope: Scope, read: Callable[[], Awaitable[bytes]]) -> bytes:
    connection = server_connection_of(scope)
    if connection is not None and connection.has_body_of(scope):
        # Nearly every request: a timer for a read that does not wait costs as much as the read.
        return await read()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            return await read()
    except TimeoutError:
        raise body_too_late() from None


async def _read(receive: Receive, limit_bytes: int) -> bytes:
    body = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise ended_too_early()
        # Nearly every body is one message: then nothing is copied.
        body = body + message["body"] if body else message["body"]
        if len(body) > limit_bytes:
            raise payload_too_large(limit_bytes)
        if not message["more_body"]:
            return body


def is_json(scope: Scope) -> bool:
    """Tell whether `Content-Type` says JSON.

    Any site can make a browser post a form with our cookie, but not JSON.
    """
    types = [value for name, value in scope["headers"] if name == b"content-type"]
    return len(types) == 1 and types[0].split(b";")[0].strip().lower() == b"application/json"
