"""From received bytes to requests, with a bound for what is held in every state of the parser.

| state | bound |
|---|---|
| no result yet: a head, chunk framing, trailers, line ends | `MAX_HEADER_BYTES` |
| one request with its body's framing | `MAX_REQUEST_BYTES` |
| requests that wait behind another one (pipelining) | `MAX_PIPELINED` |
| all unfinished or waiting requests of the process | `Intake` |

What a head may say is in `framing.py` and `targets.py`; how a request is served is in
`protocol_serving.py`, how one is refused in `protocol_refusing.py`.
"""

from __future__ import annotations

import asyncio
import urllib.parse
from typing import Any

from service.http.api_errors import ApiError, malformed_request, overloaded, payload_too_large
from service.http.framing import check_head
from service.http.protocol_refusing import RequestAfterLast
from service.http.protocol_serving import ServingProtocol
from service.http.request_cycle import RequestCycle
from service.http.server_connection import TRANSPORT_EXTENSION
from service.http.targets import split_target
from service.http.uvicorn_internals import (
    HIGH_WATER_LIMIT,
    HttpParserError,
    HttpParserUpgrade,
)

# The parser has no limits of its own, and uvicorn's pipeline has none.
MAX_HEADER_BYTES = 64 * 1024
MAX_PIPELINED = 16
# A body of 1 MiB in chunks of one byte fits in.
MAX_REQUEST_BYTES = 8 * 1024 * 1024


class ReceivingProtocol(ServingProtocol):
    """Feeds the parser, and makes requests of what it reports."""

    __slots__ = ()

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if self._discards_input:
            self._drop(len(data))
            return
        self._is_feeding = True
        try:
            self._feed(data)
        except HttpParserUpgrade:
            # What follows is another protocol, which the service does not speak.
            self._discards_input = True
        except HttpParserError as error:
            self._parser_failed(error.__context__)
        except ApiError as error:
            self._refuse(error)
        finally:
            self._is_feeding = False
        if self._held is not None:
            # Its body has not arrived with its head: the application waits for it, with a limit.
            held, self._held = self._held[0], None
            self._run_app(held, self.app)
        cycle = self.cycle
        if self._in_head or self.pipeline or (cycle is not None and cycle.more_body):
            self._bound_pending(len(data))
        elif self._counted_bytes:
            self._count(0)

    def _feed(self, data: bytes) -> None:
        room = MAX_HEADER_BYTES - self._since_progress_bytes
        if len(data) < room:
            self._since_progress_bytes += len(data)
            self.parser.feed_data(data)
            return
        # In pieces that end at the bound. Not in smaller ones: the parser keeps a header's bytes,
        # and joins them again with every piece.
        view = memoryview(data)
        while view:
            piece = view[: MAX_HEADER_BYTES - self._since_progress_bytes]
            view = view[len(piece) :]
            self._since_progress_bytes += len(piece)
            self.parser.feed_data(piece)
            if self._since_progress_bytes >= MAX_HEADER_BYTES:
                raise malformed_request("The request's headers are too large")

    def _bound_pending(self, received_bytes: int) -> None:
        """Bound what is held of unfinished requests and of those that wait for their turn."""
        if self._discards_input:
            return
        pending = self._since_progress_bytes
        newest = self.cycle
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

    # The parser's callbacks.

    def on_message_begin(self) -> None:
        if self.cycle is not None and not self.cycle.keep_alive:
            raise RequestAfterLast
        super().on_message_begin()
        self.scope["extensions"] = {TRANSPORT_EXTENSION: self}  # type: ignore[dict-item]
        self._in_head = True

    def on_header(self, name: bytes, value: bytes) -> None:
        # A trailer is not added: it arrives after the caller was verified (RFC 9110 §6.5.1).
        if self._in_head:
            self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._since_progress_bytes = 0
        if len(self.pipeline) >= MAX_PIPELINED:
            raise malformed_request("Too many requests wait for their answers")
        cycle = self.cycle = self._checked_request()
        if self._serving is None:
            self._start_asgi_task(cycle, self.app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, self.app))

    def _checked_request(self) -> RequestCycle:
        """Check the head that the parser has read; return the request that begins with it.

        Raises:
            ApiError: 400, the head is refused.
        """
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
        return RequestCycle(
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

    def on_body(self, body: bytes) -> None:
        self._since_progress_bytes = 0
        cycle = self.cycle
        if cycle.response_complete:
            return
        cycle.body += body
        cycle.received_bytes += len(body)
        # RFC 9110 §10.1.1: a client that already sends its body needs no `100 Continue`.
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
        # Also with an empty body: there is nothing to ask the client for.
        cycle.waiting_for_100_continue = False
        cycle.message_event.set()
        if self._serving is cycle:
            self.deadline.wait("answer")
        if self._held is not None:
            held, self._held = self._held, None
            self._start_append(*held)
