"""Refusing input that is no request, and ending a connection so that its client gets the answer.

Which input is refused, and why, is decided in `protocol_receiving.py` and `framing.py`.
"""

from __future__ import annotations

import logging
from typing import Any

from service.http.api_errors import ApiError, internal, malformed_request
from service.http.error_answers import request_id
from service.http.protocol_state import ConnectionState
from service.http.response_bytes import error_bytes

_log = logging.getLogger(__name__)

# Input that is read and dropped after the last response, so that the client gets to read it.
MAX_DROPPED_BYTES = 8 * 1024 * 1024


class RequestAfterLast(Exception):
    """A request on a connection that ends with the response to the one before."""


class RefusingProtocol(ConnectionState):
    """Answers refused input in its turn, drops what follows, and ends the connection."""

    __slots__ = ()

    def _parser_failed(self, cause: BaseException | None) -> None:
        """Handle an error of the parser, or of one of its callbacks (`cause`)."""
        if isinstance(cause, RequestAfterLast):
            self._discards_input = True
        elif isinstance(cause, ApiError):
            self._refuse(cause)
        elif cause is None:
            self._refuse(malformed_request())
        else:
            _log.error("a callback of the parser failed", exc_info=cause)
            self._refuse(internal())

    def _refuse(self, error: ApiError) -> None:
        """Answer input that cannot be served, after the requests before it, and close."""
        self._discards_input = True
        self._intake.count_malformed()
        serving, newest = self._serving, self.cycle
        if self._held is not None:
            self._held = self._serving = None
        elif newest is not None and newest.more_body:
            # The error is in the newest request's body, so this is that request's response.
            if serving is newest:
                if newest.response_started:
                    # Its own response is being sent, and the connection ends with that.
                    return
                newest.disconnected = True
                newest.message_event.set()
                self._serving = None
            elif self.pipeline:
                self.pipeline.popleft()
        begun: Any = self.scope
        scope: Any = {"state": {}, "headers": []} if begun is None else begun
        answer = error_bytes(
            error,
            default_headers=self.server_state.default_headers,
            request_id=request_id(scope),
        )
        if self._serving is None:
            self._end_with(answer)
        else:
            self._count(0)
            self._refusal = answer

    def _end_with(self, answer: bytes) -> None:
        self.transport.write(answer)
        self._linger()

    def _linger(self) -> None:
        """Close after a pause: a client that is still sending gets to read its response first."""
        self._discards_input = True
        self._dropped_bytes = 0
        self._count(0)
        self.deadline.wait("linger")
        self.flow.resume_reading()

    def _drop(self, size_bytes: int) -> None:
        self._dropped_bytes += size_bytes
        if self._dropped_bytes > MAX_DROPPED_BYTES:
            self.flow.pause_reading()
