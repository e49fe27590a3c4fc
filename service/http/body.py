"""Reading a request's body within bounds of size and time, and what may be in it."""

from __future__ import annotations

import asyncio

from litestar.types import HTTPScope, Receive, Scope

from service.http.api_errors import body_too_late, ended_too_early, payload_too_large
from service.http.deadlines import BODY_TIMEOUT_S
from service.http.server_connection import server_connection_of

__all__ = ["BODY_TIMEOUT_S", "MAX_BODY_BYTES", "body_is_here", "is_json", "read_body"]

MAX_BODY_BYTES = 1024 * 1024


async def read_body(
    scope: HTTPScope, receive: Receive, *, limit_bytes: int = MAX_BODY_BYTES
) -> bytes:
    """Return the body.

    Raises:
        ApiError: 413 as soon as it is known to be too large, and before it is read whole; 408
            when it does not arrive in time.
    """
    for name, value in scope["headers"]:
        if name == b"content-length" and int(value) > limit_bytes:
            raise payload_too_large(limit_bytes)
    if body_is_here(scope):
        # Nearly every request's: a timer for what does not wait would cost as much as reading it.
        return await _read(receive, limit_bytes)
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            return await _read(receive, limit_bytes)
    except TimeoutError:
        raise body_too_late() from None


async def _read(receive: Receive, limit_bytes: int) -> bytes:
    body = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise ended_too_early()
        # One message is the whole body of nearly every request: then nothing is copied.
        body = body + message["body"] if body else message["body"]
        if len(body) > limit_bytes:
            raise payload_too_large(limit_bytes)
        if not message["more_body"]:
            return body


def body_is_here(scope: Scope) -> bool:
    """Tell whether the whole body has arrived."""
    connection = server_connection_of(scope)
    return connection is not None and connection.has_body_of(scope)


def is_json(scope: Scope) -> bool:
    """Tell whether the body is announced as JSON.

    Any site may make a browser post a form with our cookie, but not JSON.
    """
    types = [value for name, value in scope["headers"] if name == b"content-type"]
    return len(types) == 1 and types[0].split(b";")[0].strip().lower() == b"application/json"
