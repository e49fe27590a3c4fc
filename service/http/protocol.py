"""uvicorn's HTTP protocol with what streams and single appends need, and with bounds.

An open stream is lent the transport. An append whose body is here goes the short way
(`short_way.py`); everything else is served by the ASGI application. Each byte that a client sends
is counted in some state, and each wait for a client has a deadline (`deadlines.py`). What a head
may say is in `framing.py` and `targets.py`. With `server.py` the only file that imports uvicorn.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import functools
import logging
import struct
import termios
import urllib.parse
from collections.abc import Callable
from typing import Any

import httptools
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from service.http.api_errors import (
    ApiError,
    internal,
    malformed_request,
    overloaded,
    payload_too_large,
)
from service.http.body import MAX_BODY_BYTES
from service.http.deadlines import Deadline
from service.http.error_answers import JSON, SECURITY_HEADERS, request_id, with_request_id
from service.http.framing import check_head
from service.http.intake import Intake
from service.http.server_connection import TRANSPORT_EXTENSION
from service.http.short_way import ShortAnswer, ShortWay
from service.http.targets import split_target

_log = logging.getLogger(__name__)

# The parser has no limits of its own, and uvicorn's pipeline none.
MAX_HEADER_BYTES = 64 * 1024
MAX_PIPELINED = 16
# Of one request with its body's framing: a body of 1 MiB in chunks of one byte fits in.
MAX_REQUEST_BYTES = 8 * 1024 * 1024
# What is read and dropped of a client that has been answered, so that it gets to its answer.
MAX_DROPPED_BYTES = 8 * 1024 * 1024

_SECURITY_HEAD = b"".join(name + b": " + value + b"\r\n" for name, value in SECURITY_HEADERS)


class _Cycle(RequestResponseCycle):
    """A request and its answer. An answer that does not wait for its request's body says so."""

    ends_early = False
    received_bytes = 0
    wire_bytes = 0

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            if self.more_body:
                self.ends_early, self.keep_alive = True, False
        elif self.ends_early and not message.get("more_body", False):
            # uvicorn would close at once, and a socket closed with unread bytes resets: the
            # client, which still sends, often loses the answer. The protocol closes it instead.
            self.keep_alive = True
        await super().send(message)

    @functools.cached_property
    def head_bytes(self) -> int:
        """The size of its head, about."""
        scope: Any = self.scope
        return len(scope["raw_path"]) + len(scope["query_string"]) + sum(
            len(name) + len(value) for name, value in scope["headers"]
        )  # fmt: skip


class StreamingProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol, which also lends its transport to an open stream.

    It tells the stream (`on_change`) when the client is gone or takes bytes again.
    """

    # uvicorn's own attributes fill what a shared-key dictionary can hold: more of them there
    # would cost each idle stream a kilobyte.
    __slots__ = (
        "_counted_bytes",
        "_dropped_bytes",
        "_held",
        "_in_head",
        "_intake",
        "_is_deaf",
        "_is_feeding",
        "_refusal",
        "_serving",
        "_short_way",
        "_since_progress_bytes",
        "_takers",
        "deadline",
        "lost",
        "on_change",
    )

    def __init__(
        self, short_way: ShortWay | None = None, intake: Intake | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self._short_way = short_way
        self._intake = Intake() if intake is None else intake
        self.lost = False
        self.on_change: Callable[[], None] | None = None
        self.deadline = Deadline(self._intake.clock)
        # The request that is being answered.
        self._serving: _Cycle | None = None
        # Who waits until all that was written is taken.
        self._takers: tuple[Callable[[], None], ...] = ()
        # A request for the short way and its project, while bytes are read that may hold its body.
        self._held: tuple[_Cycle, str] | None = None
        self._is_feeding = False
        self._in_head = False
        # Whether what still comes is dropped: it cannot be, or is not to be, a request.
        self._is_deaf = False
        self._dropped_bytes = 0
        # An error whose turn has not come: requests before it are still to be answered.
        self._refusal: bytes | None = None
        # What the parser was fed since it last gave something: a head so far, framing, trailers.
        self._since_progress_bytes = 0
        # What this connection has counted as pending in the process.
        self._counted_bytes = 0

    # The transport's callbacks.

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self._count(0)
        super().connection_lost(exc)
        serving = self._serving
        if serving is not None and not serving.response_complete:
            # Not always the newest request, which is uvicorn's only one to hear of it.
            serving.disconnected = True
            serving.message_event.set()
        if self.scope is not None:
            # The scope names this protocol: without this the pair waits for the cycle collector.
            self.scope.get("extensions", {}).clear()
        self.pipeline.clear()
        self._has_taken()
        self._tell()
        self.on_change = None

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if self._is_deaf:
            self._drop(len(data))
            return
        self._is_feeding = True
        try:
            self._feed(data)
        except httptools.HttpParserUpgrade:
            # What follows is of another protocol, which is not spoken here.
            self._is_deaf = True
        except httptools.HttpParserError as error:
            self._stop(error.__context__)
        except ApiError as error:
            self._refuse(error)
        finally:
            self._is_feeding = False
        if self._held is not None:
            # Its body is still on its way: the application waits for that, and knows for how long.
            held, self._held = self._held[0], None
            self._run(held, self.app)
        cycle = self.cycle
        if self._in_head or self.pipeline or (cycle is not None and cycle.more_body):
            self._await_rest(len(data))
        elif self._counted_bytes:
            self._count(0)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self.on_change is None:
            self.deadline.written()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._takers and not self.transport.get_write_buffer_size():
            if self.on_change is None and not self.transport.is_closing():
                # An open stream has limits of its own.
                self.transport.set_write_buffer_limits()
            self._has_taken()
        self._tell()

    # Receiving.

    def _feed(self, data: bytes) -> None:
        room = MAX_HEADER_BYTES - self._since_progress_bytes
        if len(data) < room:
            self._since_progress_bytes += len(data)
            self.parser.feed_data(data)
            return
        # In pieces that end where the bound is: the parser keeps a header's bytes, and joins them
        # anew with every piece.
        view = memoryview(data)
        while view:
            piece = view[: MAX_HEADER_BYTES - self._since_progress_bytes]
            view = view[len(piece) :]
            self._since_progress_bytes += len(piece)
            self.parser.feed_data(piece)
            if self._since_progress_bytes >= MAX_HEADER_BYTES:
                raise malformed_request("The request's headers are too large")

    def _await_rest(self, received_bytes: int) -> None:
        """Bound what is held of requests that are not whole, or not begun."""
        if self._is_deaf:
            return
        pending = self._since_progress_bytes
        newest: Any = self.cycle
        is_unfinished = newest is not None and newest.more_body
        if is_unfinished:
            newest.wire_bytes += received_bytes
            if newest.wire_bytes > MAX_REQUEST_BYTES:
                self._refuse(payload_too_large(MAX_REQUEST_BYTES, "request"))
                return
            pending += newest.head_bytes + newest.received_bytes
        for waiting, _ in self.pipeline:
            if waiting is not newest or not is_unfinished:
                pending += waiting.head_bytes + waiting.received_bytes  # type: ignore[attr-defined]
        if self._serving is None:
            self.deadline.wait("head")
        elif self._serving.more_body:
            self.deadline.wait("body")
        if not self._count(pending):
            self._refuse(overloaded())

    def _count(self, pending_bytes: int) -> bool:
        by_bytes, self._counted_bytes = pending_bytes - self._counted_bytes, pending_bytes
        return self._intake.change(by_bytes)

    # The parser's callbacks.

    def on_message_begin(self) -> None:
        if self.cycle is not None and not self.cycle.keep_alive:
            # The connection ends with the answer to the request before.
            raise _NoMore
        super().on_message_begin()
        self.scope["extensions"] = {TRANSPORT_EXTENSION: self}  # type: ignore[dict-item]
        self._in_head = True

    def on_header(self, name: bytes, value: bytes) -> None:
        # A trailer is none of them: it comes after who calls was looked at (RFC 9110 §6.5.1).
        if self._in_head:
            self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._since_progress_bytes = 0
        if len(self.pipeline) >= MAX_PIPELINED:
            raise malformed_request("Too many requests wait for their answers")
        parser = self.parser
        method, version = parser.get_method().decode("ascii"), parser.get_http_version()
        target = split_target(self.url)
        if target is None and method != "CONNECT":
            raise malformed_request("The request's target is not valid")
        raw_path, query, authority = target or (b"", b"", None)
        upgrades = parser.should_upgrade()
        expects_continue = check_head(
            self.headers, method=method, version=version, upgrades=upgrades, authority=authority
        )
        scope: Any = self.scope
        scope["method"] = method
        scope["http_version"] = version
        path = raw_path.decode("ascii")
        scope["path"] = urllib.parse.unquote(path) if "%" in path else path
        scope["raw_path"] = raw_path
        scope["query_string"] = query
        cycle = self.cycle = _Cycle(
            scope=scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=expects_continue,
            keep_alive=version == "1.1" and parser.should_keep_alive() and not upgrades,
            on_response=self.on_response_complete,
        )
        if self._serving is None:
            self._start_asgi_task(cycle, self.app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, self.app))

    def on_body(self, body: bytes) -> None:
        self._since_progress_bytes = 0
        cycle: Any = self.cycle
        if cycle.response_complete:
            return
        cycle.body += body
        cycle.received_bytes += len(body)
        # RFC 9110 §10.1.1: who sends its body already need not be told to.
        cycle.waiting_for_100_continue = False
        if len(cycle.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        cycle.message_event.set()

    def on_message_complete(self) -> None:
        self._since_progress_bytes = 0
        cycle = self.cycle
        if cycle.response_complete:
            return
        cycle.more_body = False
        # Also of a body that is empty: there is nothing to ask for.
        cycle.waiting_for_100_continue = False
        cycle.message_event.set()
        if self._serving is cycle:
            self.deadline.wait("answer")
        if self._held is not None:
            held, self._held = self._held, None
            self._begin(*held)

    # Serving. The types of ASGI are uvicorn's here, and Litestar's everywhere else: hence `Any`.

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self._serving = cycle
        if not cycle.more_body:
            self.deadline.wait("answer")
        elif not self._is_feeding:
            self.deadline.wait("body")
        project_id = None if self._short_way is None else self._short_way.project_of(cycle.scope)
        if project_id is None:
            self._run(cycle, app)
        elif not cycle.more_body:
            self._begin(cycle, project_id)
        elif self._is_feeding:
            self._held = cycle, project_id
        else:
            self._run(cycle, app)

    def _run(self, cycle: RequestResponseCycle, app: Any) -> None:
        super()._start_asgi_task(cycle, app)

    def _begin(self, cycle: _Cycle, project_id: str) -> None:
        """Append what a request with its whole body asks for."""
        assert self._short_way is not None
        if len(cycle.body) > MAX_BODY_BYTES:
            # Whole at once, which no socket brings: the application knows what to say.
            self._run(cycle, self.app)
            return
        scope: Any = cycle.scope
        try:
            appending = self._short_way.begin(project_id, scope, bytes(cycle.body))
        except Exception as error:  # noqa: BLE001 - answered, and logged where it is unexpected
            self._run(cycle, self._short_way.failed(error))
            return
        # Like a request's task: the server waits for it when it ends, and cancels it in the end.
        pending: Any = appending
        self.tasks.add(pending)
        appending.add_done_callback(lambda _: self._appended(cycle, pending))

    def _appended(self, cycle: _Cycle, done: Any) -> None:
        assert self._short_way is not None
        self.tasks.discard(done)
        error = asyncio.CancelledError() if done.cancelled() else done.exception()
        if self.transport.is_closing():
            cycle.disconnected = True
        if error is not None:
            # Also when the client is gone: a bug is logged there.
            self._run(cycle, self._short_way.failed(error))
            return
        if cycle.disconnected:
            cycle.on_response = _nothing
            return
        answer = self._short_way.answer(done.result())
        if self.flow.write_paused:
            # The client does not take the answers to what it asked before: wait for it.
            self._run(cycle, with_request_id(answer))
        else:
            self._write(cycle, answer)

    def _write(self, cycle: _Cycle, answer: ShortAnswer) -> None:
        """Write a whole response, as the cycle's `send` would piece by piece."""
        head = [STATUS_LINE[answer.status]]
        for name, value in cycle.default_headers:
            head += (name, b": ", value, b"\r\n")
        if not cycle.keep_alive:
            head.append(b"connection: close\r\n")
        scope: Any = cycle.scope
        head += (answer.head, b"x-request-id: ", request_id(scope).encode(), b"\r\n")
        head += (_SECURITY_HEAD, b"\r\n")
        cycle.response_started = cycle.response_complete = True
        cycle.message_event.set()
        self.transport.write(b"".join((*head, answer.body)))
        if not cycle.keep_alive:
            self.transport.close()
        cycle.on_response()
        # As the server does: else request and connection name each other for ever.
        cycle.on_response = _nothing

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

    # Refusing, and ending.

    def _stop(self, cause: BaseException | None) -> None:
        """The parser, or one of its callbacks, has refused what came."""
        if isinstance(cause, _NoMore):
            self._is_deaf = True
        elif isinstance(cause, ApiError):
            self._refuse(cause)
        elif cause is None:
            self._refuse(malformed_request())
        else:
            _log.error("a callback of the parser failed", exc_info=cause)
            self._refuse(internal())

    def _refuse(self, error: ApiError) -> None:
        """Answer what cannot be served, in its turn, and close the connection."""
        self._is_deaf = True
        self._intake.count_malformed()
        serving, newest = self._serving, self.cycle
        if self._held is not None:
            self._held = self._serving = None
        elif newest is not None and newest.more_body:
            # It is this one's body that is wrong.
            if serving is newest:
                if newest.response_started:
                    # Its own answer is on its way, and the connection ends with that.
                    return
                newest.disconnected = True
                newest.message_event.set()
                self._serving = None
            elif self.pipeline:
                self.pipeline.popleft()
        answer = self._whole(error)
        if self._serving is None:
            self._end_with(answer)
        else:
            self._count(0)
            self._refusal = answer

    def _whole(self, error: ApiError) -> bytes:
        begun: Any = self.scope
        scope: Any = {"state": {}, "headers": []} if begun is None else begun
        identity = request_id(scope)
        body = error.body(identity)
        lines = [STATUS_LINE[error.status]]
        for name, value in self.server_state.default_headers:
            lines += (name, b": ", value, b"\r\n")
        own = {
            **error.headers(),
            "Connection": "close",
            "Content-Type": JSON,
            "Content-Length": str(len(body)),
            "X-Request-Id": identity,
        }
        lines += [f"{name.lower()}: {value}\r\n".encode() for name, value in own.items()]
        return b"".join((*lines, _SECURITY_HEAD, b"\r\n", body))

    def _end_with(self, answer: bytes) -> None:
        self.transport.write(answer)
        self._linger()

    def _linger(self) -> None:
        """Close soon: a client that still sends gets to read its answer first."""
        self._is_deaf = True
        self._dropped_bytes = 0
        self._count(0)
        self.deadline.wait("linger")
        self.flow.resume_reading()

    def _drop(self, size_bytes: int) -> None:
        self._dropped_bytes += size_bytes
        if self._dropped_bytes > MAX_DROPPED_BYTES:
            self.flow.pause_reading()

    def look(self, now_s: float) -> None:
        """Close the connection when its client is late, or takes nothing of what was written."""
        unread_bytes = self._unread_bytes()
        deadline = self.deadline
        if deadline.has_stalled(unread_bytes, now_s):
            self.transport.abort()
        elif deadline.due_s <= now_s and not self.transport.is_closing():
            if deadline.phase == "idle" and unread_bytes:
                # It reads its last answer, slowly.
                return
            deadline.wait("closing")
            deadline.written()
            self.transport.close()

    def _unread_bytes(self) -> int:
        """What the client has not acknowledged, in this process and, where it tells, the system.

        A slow client's progress shows in the system's buffer long before it shows here.
        """
        unread = self.transport.get_write_buffer_size()
        lent = self.transport.get_extra_info("socket")
        if unread and lent is not None:
            with contextlib.suppress(OSError, ValueError):
                (queued,) = struct.unpack(
                    "i", fcntl.ioctl(lent.fileno(), termios.TIOCOUTQ, b"0000")
                )
                unread += queued
        return unread

    # What others ask of a connection.

    def when_taken(self, callback: Callable[[], None]) -> None:
        """Call back, once, when the client has taken all that was written, or is gone.

        A client that takes nothing is gone in the end (`look`).
        """
        if self.lost or not self.transport.get_write_buffer_size():
            callback()
            return
        self._takers = (*self._takers, callback)
        # Writing resumes with an empty buffer, not with one that is half empty.
        self.transport.set_write_buffer_limits(high=0)

    def _has_taken(self) -> None:
        takers, self._takers = self._takers, ()
        for callback in takers:
            callback()

    def has_body_of(self, scope: object) -> bool:
        """Tell whether the whole body of this request is here already."""
        cycle = self._serving
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


def _nothing() -> None:
    pass


class _NoMore(Exception):
    """A request on a connection that ends with the one before."""
