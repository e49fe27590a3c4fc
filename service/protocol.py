"""uvicorn's HTTP protocol with what streams and single appends need.

An open stream is lent the transport. An append whose body is here goes to `direct.py`; everything
else is served by the ASGI application. With `server.py` the only file that imports uvicorn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from service.direct import Answer, DirectAppend
from service.errors import request_id, with_request_id
from service.wire import TRANSPORT_EXTENSION

# How long a client may take from its first byte (or from connecting) to the end of its headers.
HEADERS_TIMEOUT_S = 10.0
# The parser has no limits of its own, and uvicorn's pipeline none.
MAX_HEADER_BYTES = 64 * 1024
MAX_PIPELINED = 16


class StreamingProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol, which also lends its transport to an open stream.

    It tells the stream (`on_change`) when the client is gone or takes bytes again, and it closes
    connections whose headers do not arrive in time.
    """

    def __init__(self, direct: DirectAppend | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._direct = direct
        # A request for `direct` and its project, while bytes are read that may hold its body.
        self._held: tuple[RequestResponseCycle, str] | None = None
        self.lost = False
        self.on_change: Callable[[], None] | None = None
        # Whether headers have begun, or may, that have not ended.
        self._headers_due = True
        self._headers_timer: asyncio.TimerHandle | None = None
        self._header_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self._headers_arrived()
        super().connection_lost(exc)
        if self.scope is not None:
            # The scope names this protocol: without this the pair waits for the cycle collector.
            self.scope.get("extensions", {}).clear()
        self.pipeline.clear()
        self._tell()
        self.on_change = None

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        super().data_received(data)
        if self._held is not None and not self.transport.is_closing():
            # Its body is still on its way: the application waits for that, and knows for how long.
            self._run(self._held[0], self.app)
        self._held = None
        if self._headers_due and not self.transport.is_closing():
            # Only now: most headers come in one piece, and need no timer.
            if self._headers_timer is None:
                self._expect_headers()
                return
            self._header_bytes += len(data)
            if self._header_bytes > MAX_HEADER_BYTES:
                self.send_400_response("The request's headers are too large.")

    def resume_writing(self) -> None:
        super().resume_writing()
        self._tell()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {TRANSPORT_EXTENSION: self}  # type: ignore[dict-item]
        self._headers_due = True

    def on_headers_complete(self) -> None:
        self._headers_arrived()
        if len(self.pipeline) >= MAX_PIPELINED:
            # The parser hands this on as its own error, which uvicorn answers with 400.
            raise _TooManyPipelined
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        if self._held is not None:
            held, self._held = self._held, None
            self._begin(*held)

    # The types of ASGI are uvicorn's here, and Litestar's everywhere else: hence `Any`.

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        scope: Any = cycle.scope
        project_id = None if self._direct is None else self._direct.project_of(scope)
        if project_id is None:
            self._run(cycle, app)
        elif cycle.more_body:
            self._held = cycle, project_id
        else:
            self._begin(cycle, project_id)

    def _run(self, cycle: RequestResponseCycle, app: Any) -> None:
        super()._start_asgi_task(cycle, app)

    def _begin(self, cycle: RequestResponseCycle, project_id: str) -> None:
        """Append what a request with its whole body asks for."""
        assert self._direct is not None
        scope: Any = cycle.scope
        try:
            appending = self._direct.begin(project_id, scope, bytes(cycle.body))
        except Exception as error:  # noqa: BLE001 - answered, and logged where it is unexpected
            self._run(cycle, self._direct.failed(error))
            return
        # Like a request's task: the server waits for it when it ends, and cancels it in the end.
        pending: Any = appending
        self.tasks.add(pending)
        appending.add_done_callback(lambda _: self._appended(cycle, pending))

    def _appended(self, cycle: RequestResponseCycle, done: Any) -> None:
        assert self._direct is not None
        self.tasks.discard(done)
        error = asyncio.CancelledError() if done.cancelled() else done.exception()
        if self.transport.is_closing():
            cycle.disconnected = True
        if error is not None:
            # Also when the client is gone: a bug is logged there.
            self._run(cycle, self._direct.failed(error))
            return
        if cycle.disconnected:
            cycle.on_response = _nothing
            return
        answer = Answer(done.result())
        if self.flow.write_paused:
            # The client does not take the answers to what it asked before: wait for it.
            self._run(cycle, with_request_id(answer))
        else:
            self._write(cycle, answer)

    def _write(self, cycle: RequestResponseCycle, answer: Answer) -> None:
        """Write a whole response, as the cycle's `send` would piece by piece."""
        head = [STATUS_LINE[answer.status]]
        for name, value in cycle.default_headers:
            head += (name, b": ", value, b"\r\n")
        if not cycle.keep_alive:
            head.append(b"connection: close\r\n")
        scope: Any = cycle.scope
        head += (answer.head, b"x-request-id: ", request_id(scope).encode(), b"\r\n\r\n")
        cycle.response_started = cycle.response_complete = True
        cycle.message_event.set()
        self.transport.write(b"".join((*head, answer.body)))
        if not cycle.keep_alive:
            self.transport.close()
        cycle.on_response()
        # As the server does: else request and connection name each other for ever.
        cycle.on_response = _nothing

    def has_body_of(self, scope: object) -> bool:
        """Tell whether the whole body of this request is here already."""
        cycle = self.cycle
        return cycle is not None and cycle.scope is scope and not cycle.more_body

    def forget_request(self) -> None:
        """Drop what is kept of the request: a stream lives long and never looks at it again."""
        self.headers.clear()
        self.url = b""
        self.scope["query_string"] = b""
        self.scope["state"] = {}

    @property
    def waits_for_body(self) -> bool:
        """Whether a request has begun, and its body is not there."""
        cycle = self.cycle
        return cycle is not None and not cycle.response_complete and cycle.more_body

    @property
    def waits_for_reader(self) -> bool:
        """Whether the client has not taken what was written."""
        return self.flow.write_paused or self.transport.is_closing()

    def _tell(self) -> None:
        if self.on_change is not None:
            self.on_change()

    def _expect_headers(self) -> None:
        self._headers_timer = self.loop.call_later(HEADERS_TIMEOUT_S, self._headers_are_late)

    def _headers_arrived(self) -> None:
        self._headers_due = False
        if self._headers_timer is not None:
            self._headers_timer.cancel()
            self._headers_timer = None
        self._header_bytes = 0

    def _headers_are_late(self) -> None:
        self._headers_timer = None
        if not self.transport.is_closing():
            self.transport.close()


def _nothing() -> None:
    pass


class _TooManyPipelined(Exception):
    """The client sends requests without waiting for answers."""
