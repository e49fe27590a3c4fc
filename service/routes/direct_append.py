"""The single append, served without a task, a router or ASGI messages: the hot path of posts.

The server's protocol (`http/protocol.py`) passes a request here when its whole body has arrived,
and writes the response. Requests that are not served here go to the router: `routes/messages.py`
has the same append and documents it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable

import msgspec
from litestar.types import ASGIApp, HTTPScope, Receive, Scope, Send

from service.context import Context
from service.http.api_errors import (
    FieldError,
    body_required,
    store_unavailable,
    unsupported_media_type,
    validation_failed,
)
from service.http.body import is_json
from service.http.error_answers import answer_error, with_request_id
from service.http.error_mapping import invalid_body
from service.routes.messages import PostedMessage, append_message, new_message, receipt
from service.telemetry.metrics import Metrics
from streams.log.log import Appended
from streams.model.ids import check_project_id

# Of the path as it was sent: one with an escape is left to the application.
_MESSAGES = re.compile(rb"/v1/projects/([A-Za-z0-9_-]+)/chat/messages/?")

_read = msgspec.json.Decoder().decode
_decode = msgspec.json.Decoder(PostedMessage).decode
_encode = msgspec.json.Encoder().encode


def _posted(body: bytes) -> PostedMessage:
    """Decode a body as the router does: first as JSON, so that fields which are ignored must be
    JSON in UTF-8 too, then by its type.
    """
    try:
        _read(body)
    except RecursionError as error:
        raise invalid_body(error) from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise validation_failed(FieldError("body", "is not valid JSON")) from None
    try:
        # Decoded again: converting the first result would take four times as long.
        return _decode(body)
    except msgspec.ValidationError as error:
        raise invalid_body(error) from None


class Answer:
    """The answer to an append that succeeded: in one piece, or as an ASGI application."""

    def __init__(self, appended: list[Appended]) -> None:
        (only,) = appended
        self.status = 200 if only.duplicate else 201
        self.body = _encode(receipt(only))

    @property
    def head(self) -> bytes:
        """Its own headers as HTTP/1.1 has them."""
        return b"content-type: application/json\r\ncontent-length: %d\r\n" % len(self.body)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it as ASGI has it."""
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(self.body)),
        ]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": False})


class DirectAppend:
    """Serves `POST /v1/projects/{id}/chat/messages`."""

    def __init__(
        self, context: Callable[[], Context], metrics: Metrics, *, answers_origins: bool
    ) -> None:
        """`answers_origins`: pages of other origins may call, and need headers of the router's."""
        self._context = context
        self._metrics = metrics
        self._answers_origins = answers_origins

    def project_of(self, scope: HTTPScope) -> str | None:
        """Return the project that a request appends to; none when it is not served here."""
        if scope["method"] != "POST":
            return None
        match = _MESSAGES.fullmatch(scope["raw_path"])
        if match is None:
            return None
        if self._answers_origins and any(name == b"origin" for name, _ in scope["headers"]):
            return None
        return match[1].decode("ascii")

    def begin(
        self, project_id: str, scope: HTTPScope, body: bytes
    ) -> asyncio.Future[list[Appended]]:
        """Begin the append that a request asks for; the future has it when it is committed.

        `failed` makes the response to what this or the future raises.
        """
        context = self._context()
        caller = context.callers.authenticate(scope, body, query_token=False)
        if body and not is_json(scope):
            raise unsupported_media_type()
        if not body:
            raise body_required()
        posted = _posted(body)
        check_project_id(project_id)
        if context.posting.is_free(caller, project_id):
            message = new_message(caller.user_id, posted, context.settings.max_text_bytes)
            return context.log.append_soon(project_id, message)
        return asyncio.create_task(
            append_message(context, caller, project_id, posted), name="append"
        )

    def answer(self, appended: list[Appended]) -> Answer:
        """Return the answer to an append that was committed."""
        return Answer(appended)

    def failed(self, error: BaseException) -> ASGIApp:
        """Return an application that answers what `begin` or its future raised."""
        answered = store_unavailable() if isinstance(error, asyncio.CancelledError) else error
        assert isinstance(answered, Exception)

        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            await answer_error(answered, scope, send, self._metrics)

        return with_request_id(answer)
