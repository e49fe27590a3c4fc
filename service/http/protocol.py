"""The server's protocol: one client's connection, as the transport, requests and the sweep see it.

uvicorn's HTTP protocol, extended for three things: an open stream is lent the transport, a single
append takes the fast path (`fast_path.py`), and every received byte and every wait for a client
has a bound. The work is done in the layers below; `protocol_state.py` lists them. This file has
the transport's callbacks, the check of deadlines, and what requests ask of their connection
(`server_connection.py`). No request is read, served or refused here.
"""

from __future__ import annotations

from collections.abc import Callable

from service.http.protocol_receiving import ReceivingProtocol
from service.http.uvicorn_internals import unacknowledged_bytes


class StreamingProtocol(ReceivingProtocol):
    """One connection of the service."""

    __slots__ = ()

    # The transport's callbacks, beside `data_received`.

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self._count(0)
        super().connection_lost(exc)
        serving = self._serving
        if serving is not None and not serving.response_complete:
            # uvicorn informs only the newest request, which may wait behind this one.
            serving.disconnected = True
            serving.message_event.set()
        if self.scope is not None:
            # The scope references this protocol: without this both wait for the cycle collector.
            self.scope.get("extensions", {}).clear()
        self.pipeline.clear()
        self._notify_drained()
        self._notify_stream()
        self.on_change = None

    def pause_writing(self) -> None:
        super().pause_writing()
        if self.on_change is None:
            self.deadline.written()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._on_drained and not self.transport.get_write_buffer_size():
            if self.on_change is None and not self.transport.is_closing():
                # Not with an open stream, which has set limits of its own.
                self.transport.set_write_buffer_limits()
            self._notify_drained()
        self._notify_stream()

    # The sweep: see `deadlines.py`.

    def check_deadline(self, now_s: float) -> None:
        """Close the connection if its client is late, or takes nothing of what was written."""
        unread_bytes = self._unread_bytes()
        deadline = self.deadline
        if deadline.has_stalled(unread_bytes, now_s):
            self.transport.abort()
        elif deadline.due_s <= now_s and not self.transport.is_closing():
            if deadline.phase == "idle" and unread_bytes:
                # The client still reads its last response, slowly.
                return
            deadline.wait("closing")
            deadline.written()
            self.transport.close()

    def _unread_bytes(self) -> int:
        """Return what the client has not taken, in this process and in the system.

        A slow client's progress shows in the system's buffer long before it shows here.
        """
        unread = self.transport.get_write_buffer_size()
        return unread + unacknowledged_bytes(self.transport) if unread else 0

    # What requests and the server ask of a connection.

    def when_taken(self, callback: Callable[[], None]) -> None:
        """Call `callback` once, when the client has taken all that was written, or is gone.

        It is called in the end: `check_deadline` aborts a client that takes nothing.
        """
        if self.lost or not self.transport.get_write_buffer_size():
            callback()
            return
        self._on_drained = (*self._on_drained, callback)
        # So that `resume_writing` is called with an empty buffer, not with a half empty one.
        self.transport.set_write_buffer_limits(high=0)

    def has_body_of(self, scope: object) -> bool:
        """Tell whether the whole body of this request has been received."""
        cycle = self._serving
        return cycle is not None and cycle.scope is scope and not cycle.more_body

    def forget_request(self) -> None:
        """Drop what is kept of the request: an open stream lives long and does not read it."""
        self.headers.clear()
        self.url = b""
        self.scope["query_string"] = b""
        self.scope["state"] = {}

    @property
    def waits_for_body(self) -> bool:
        """Whether the body of the newest request is incomplete."""
        cycle = self.cycle
        return cycle is not None and not cycle.response_complete and cycle.more_body

    @property
    def waits_for_reader(self) -> bool:
        """Whether the client has not taken what was written."""
        return self.flow.write_paused or self.transport.is_closing()

    def _notify_drained(self) -> None:
        callbacks, self._on_drained = self._on_drained, ()
        for callback in callbacks:
            callback()

    def _notify_stream(self) -> None:
        if self.on_change is not None:
            self.on_change()
