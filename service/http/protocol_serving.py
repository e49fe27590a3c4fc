"""From a request to its response: by the fast path when it takes it, else by the application.

The request's bytes are read in `protocol_receiving.py`. The types of ASGI are uvicorn's here, and
Litestar's everywhere else: hence `Any`.
"""

from __future__ import annotations

import asyncio
from typing import Any

from service.http.body import MAX_BODY_BYTES
from service.http.error_answers import request_id, with_request_id
from service.http.fast_path import FastResponse
from service.http.protocol_refusing import RefusingProtocol
from service.http.request_cycle import RequestCycle, ignore_response
from service.http.response_bytes import fast_response_bytes


class ServingProtocol(RefusingProtocol):
    """Serves the requests of a connection one after another."""

    __slots__ = ()

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        # uvicorn's name for it: the application is one of two ways here.
        self._serving = cycle
        if not cycle.more_body:
            self.deadline.wait("answer")
        elif not self._is_feeding:
            self.deadline.wait("body")
        project_id = None if self._fast_path is None else self._fast_path.project_of(cycle.scope)
        if project_id is None:
            self._run_app(cycle, app)
        elif not cycle.more_body:
            self._start_append(cycle, project_id)
        elif self._is_feeding:
            self._held = cycle, project_id
        else:
            self._run_app(cycle, app)

    def _run_app(self, cycle: RequestCycle, app: Any) -> None:
        super()._start_asgi_task(cycle, app)

    def _start_append(self, cycle: RequestCycle, project_id: str) -> None:
        """Start the append of a request whose whole body has been received."""
        assert self._fast_path is not None
        if len(cycle.body) > MAX_BODY_BYTES:
            # Only fed in one piece, which no socket does: the application answers 413.
            self._run_app(cycle, self.app)
            return
        scope: Any = cycle.scope
        try:
            appending = self._fast_path.begin(project_id, scope, bytes(cycle.body))
        except Exception as error:  # noqa: BLE001 - answered, and logged where it is unexpected
            self._run_app(cycle, self._fast_path.failed(error))
            return
        # Among the tasks: the server waits for them when it shuts down, then cancels them.
        pending: Any = appending
        self.tasks.add(pending)
        appending.add_done_callback(lambda _: self._append_done(cycle, pending))

    def _append_done(self, cycle: RequestCycle, done: Any) -> None:
        assert self._fast_path is not None
        self.tasks.discard(done)
        error = asyncio.CancelledError() if done.cancelled() else done.exception()
        if self.transport.is_closing():
            cycle.disconnected = True
        if error is not None:
            # Also when the client is gone: this logs a bug.
            self._run_app(cycle, self._fast_path.failed(error))
            return
        if cycle.disconnected:
            cycle.on_response = ignore_response
            return
        response = self._fast_path.answer(done.result())
        if self.flow.write_paused:
            # The client has not taken earlier responses; as an application this one waits for it.
            self._run_app(cycle, with_request_id(response))
        else:
            self._write(cycle, response)

    def _write(self, cycle: RequestCycle, response: FastResponse) -> None:
        """Write a whole response, and set what the cycle's `send` would set."""
        scope: Any = cycle.scope
        data = fast_response_bytes(
            response,
            default_headers=cycle.default_headers,
            request_id=request_id(scope),
            keep_alive=cycle.keep_alive,
        )
        cycle.response_started = cycle.response_complete = True
        cycle.message_event.set()
        self.transport.write(data)
        if not cycle.keep_alive:
            self.transport.close()
        cycle.on_response()
        cycle.on_response = ignore_response

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        answered, self._serving = self._serving, None
        if self.transport.get_write_buffer_size():
            self.deadline.written()
        if self.transport.is_closing():
            self.deadline.wait("closing")
            return
        if answered is not None and answered.ends_early:
            self._linger()
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self._refusal is not None:
            self._end_with(self._refusal)
        else:
            self.deadline.wait("head" if self._in_head else "idle")
