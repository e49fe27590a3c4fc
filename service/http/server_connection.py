"""What a request can ask of its connection when the server is our own: the interface alone.

It is below both sides: `protocol.py` is such a connection; `wire.py`, `body.py` and the routes
use one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol, cast

from litestar.types import Scope

TRANSPORT_EXTENSION = "seqstream.transport"


class FlowControl(Protocol):
    """Whether the client takes bytes."""

    @property
    def write_paused(self) -> bool:
        """Whether it takes none for now."""


class ServerConnection(Protocol):
    """A client's connection, as the requests on it see it."""

    lost: bool
    """Whether the client is gone."""
    on_change: Callable[[], None] | None
    """Called when the client is gone, or takes bytes again."""

    @property
    def transport(self) -> asyncio.Transport:
        """What a stream writes to."""

    @property
    def flow(self) -> FlowControl:
        """Whether the client takes bytes."""

    def has_body_of(self, scope: object) -> bool:
        """Tell whether the whole body of this request has been received."""

    def when_taken(self, callback: Callable[[], None]) -> None:
        """Call `callback` once, when the client has taken all that was written, or is gone."""

    def forget_request(self) -> None:
        """Drop what is kept of the request: an open stream lives long and does not read it."""


def server_connection_of(scope: Scope) -> ServerConnection | None:
    """Return the connection of a request; None when another server runs the application."""
    found = (scope.get("extensions") or {}).get(TRANSPORT_EXTENSION)
    return None if found is None else cast("ServerConnection", found)
