"""What the duties of a connection share: its state, and the count of its pending bytes.

The protocol is one class in layers, each in a file of its own, and each calls only those below:

    protocol.py             the transport's callbacks, and what requests and the sweep ask
    protocol_receiving.py   from received bytes to requests, within bounds
    protocol_serving.py     from a request to its response: the fast path or the application
    protocol_refusing.py    the end of a connection whose input is not served
    protocol_state.py       the state

Layers and not parts that hold each other: an open stream keeps this object for hours, so its
memory counts, and every request runs through it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from service.http.deadlines import Deadline
from service.http.fast_path import FastPath
from service.http.intake import Intake
from service.http.request_cycle import RequestCycle
from service.http.uvicorn_internals import HttpToolsProtocol


class ConnectionState(HttpToolsProtocol):
    """The state of one connection, beside uvicorn's own."""

    # uvicorn's own attributes fill what a shared-key dictionary can hold: more of them there
    # would cost each idle stream a kilobyte.
    __slots__ = (
        "_counted_bytes",
        "_discards_input",
        "_dropped_bytes",
        "_fast_path",
        "_held",
        "_in_head",
        "_intake",
        "_is_feeding",
        "_on_drained",
        "_refusal",
        "_serving",
        "_since_progress_bytes",
        "deadline",
        "lost",
        "on_change",
    )

    # The newest request, whose body may still be arriving; None before the first one.
    cycle: RequestCycle

    def __init__(
        self, fast_path: FastPath | None = None, intake: Intake | None = None, **kwargs: Any
    ) -> None:
        """`kwargs` are uvicorn's; the connections of a process share one `intake`."""
        super().__init__(**kwargs)
        self._fast_path = fast_path
        self._intake = Intake() if intake is None else intake
        self.lost = False
        # Set by an open stream; called when the client is gone or takes bytes again.
        self.on_change: Callable[[], None] | None = None
        self.deadline = Deadline(self._intake.clock)
        # The request that is being answered.
        self._serving: RequestCycle | None = None
        # Callbacks for when the client has taken all that was written.
        self._on_drained: tuple[Callable[[], None], ...] = ()
        # A request for the fast path and its project, during a read that may hold its body.
        self._held: tuple[RequestCycle, str] | None = None
        # Whether the parser is being fed.
        self._is_feeding = False
        # Whether the parser has begun a head and not ended it.
        self._in_head = False
        # Whether further input is dropped: it cannot be, or must not be, a request.
        self._discards_input = False
        self._dropped_bytes = 0
        # The response to refused input, while requests before it are still to be answered.
        self._refusal: bytes | None = None
        # Bytes fed to the parser since its last result: a head so far, framing, trailers.
        self._since_progress_bytes = 0
        # What this connection has counted as pending in `_intake`.
        self._counted_bytes = 0

    def _count(self, pending_bytes: int) -> bool:
        """Set this connection's pending bytes; tell whether the process may keep more."""
        by_bytes, self._counted_bytes = pending_bytes - self._counted_bytes, pending_bytes
        return self._intake.change(by_bytes)
