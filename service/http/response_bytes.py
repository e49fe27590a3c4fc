"""Whole responses as bytes of HTTP/1.1, for what the protocol answers without ASGI. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from service.http.api_errors import ApiError
from service.http.error_answers import JSON, SECURITY_HEADERS
from service.http.fast_path import FastResponse
from service.http.uvicorn_internals import STATUS_LINE

Headers = Iterable[tuple[bytes, bytes]]

_SECURITY_HEAD = b"".join(name + b": " + value + b"\r\n" for name, value in SECURITY_HEADERS)


def fast_response_bytes(
    response: FastResponse, *, default_headers: Headers, request_id: str, keep_alive: bool
) -> bytes:
    """Return a response of the fast path, as ASGI's `send` would write it piece by piece."""
    parts = [STATUS_LINE[response.status]]
    for name, value in default_headers:
        parts += (name, b": ", value, b"\r\n")
    if not keep_alive:
        parts.append(b"connection: close\r\n")
    parts += (response.head, b"x-request-id: ", request_id.encode(), b"\r\n")
    parts += (_SECURITY_HEAD, b"\r\n", response.body)
    return b"".join(parts)


def error_bytes(error: ApiError, *, default_headers: Headers, request_id: str) -> bytes:
    """Return the response to bytes that are no request; the connection ends with it."""
    body = error.body(request_id)
    parts = [STATUS_LINE[error.status]]
    for name, value in default_headers:
        parts += (name, b": ", value, b"\r\n")
    own = {
        **error.headers(),
        "Connection": "close",
        "Content-Type": JSON,
        "Content-Length": str(len(body)),
        "X-Request-Id": request_id,
    }
    parts += [f"{name.lower()}: {value}\r\n".encode() for name, value in own.items()]
    parts += (_SECURITY_HEAD, b"\r\n", body)
    return b"".join(parts)
