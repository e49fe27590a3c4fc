"""Closing a connection whose request body is not read to its end.

A socket that is closed with unread bytes resets the connection, and the client that is still
sending often loses the answer that says why. So the answer goes out whole, what still comes is
read and dropped for a moment, and only then the response ends.
"""

from __future__ import annotations

import asyncio
import contextlib

from litestar.types import Message, Receive, Send

# 408 and 413: answered before the body was there.
_UNREAD_BODY = (408, 413)
_LINGER_S = 1.0
_LINGER_BYTES = 8 * 1024 * 1024


def lingering(receive: Receive, send: Send) -> Send:
    """Wrap `send`: an answer that leaves the body unread reaches its client."""
    has_unread = False

    async def send_and_linger(message: Message) -> None:
        nonlocal has_unread
        if message["type"] == "http.response.start":
            has_unread = message["status"] in _UNREAD_BODY
            await send(message)
        elif has_unread and message["type"] == "http.response.body" and not message["more_body"]:
            await send({**message, "more_body": True})
            await _drop_rest(receive)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        else:
            await send(message)

    return send_and_linger


async def _drop_rest(receive: Receive) -> None:
    dropped = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LINGER_S):
            while dropped < _LINGER_BYTES:
                message = await receive()
                if message["type"] != "http.request" or not message["more_body"]:
                    return
                dropped += len(message["body"])
