"""How the protocol serves single appends without the ASGI application: the interface alone.

The protocol asks which requests the fast path serves, hands over those whose whole body has been
received, and writes the responses. What such a request means is not known here
(`service/routes/direct_append.py` implements it).
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from litestar.types import ASGIApp, HTTPScope, Receive, Scope, Send


class FastResponse(Protocol):
    """A whole response: as bytes, or as an ASGI application."""

    @property
    def status(self) -> int:
        """The HTTP status."""

    @property
    def head(self) -> bytes:
        """Its own headers as HTTP/1.1 lines."""

    @property
    def body(self) -> bytes:
        """The body."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it as ASGI messages."""


class FastPath(Protocol):
    """Serves some requests without the application."""

    def project_of(self, scope: HTTPScope) -> str | None:
        """Return the project of a request that is served here; None for all others."""

    def begin(self, project_id: str, scope: HTTPScope, body: bytes) -> asyncio.Future[Any]:
        """Start what a request asks for; `answer` makes a response of the future's result.

        `failed` answers whatever this method or the future raises.
        """

    def answer(self, result: Any) -> FastResponse:
        """Return the response to a request that succeeded."""

    def failed(self, error: BaseException) -> ASGIApp:
        """Return an application that answers what `begin` or its future raised."""
