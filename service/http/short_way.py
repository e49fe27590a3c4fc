"""A way past the ASGI application for requests that carry the load, as the protocol sees it.

The protocol asks which requests it takes, hands over those whose body is here, and writes the
answers. What such a request means is not known here (`service/routes/direct_append.py`).
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from litestar.types import ASGIApp, HTTPScope, Receive, Scope, Send


class ShortAnswer(Protocol):
    """A whole answer: in one piece, or as an ASGI application."""

    @property
    def status(self) -> int:
        """The status."""

    @property
    def head(self) -> bytes:
        """Its own headers as HTTP/1.1 has them."""

    @property
    def body(self) -> bytes:
        """The body."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it as ASGI has it."""


class ShortWay(Protocol):
    """Serves some requests without the application."""

    def project_of(self, scope: HTTPScope) -> str | None:
        """Return the project of a request that is served here; none for all others."""

    def begin(self, project_id: str, scope: HTTPScope, body: bytes) -> asyncio.Future[Any]:
        """Begin what a request asks for; `answer` makes an answer of the future's result.

        Whatever this or the future raises, `failed` answers.
        """

    def answer(self, result: Any) -> ShortAnswer:
        """Return the answer to a request that succeeded."""

    def failed(self, error: BaseException) -> ASGIApp:
        """Return an application that answers what `begin` or its future raised."""
