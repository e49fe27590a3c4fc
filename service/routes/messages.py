"""Appending messages, and the history."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from litestar import Controller, Request, Response, get, post
from litestar.datastructures import State
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter
from msgspec import Meta

from service.access.identity import Caller
from service.context import Context, context_of
from service.http.api_errors import FieldError, validation_failed
from service.http.server_connection import server_connection_of
from service.routes.documents import ERRORS
from service.streaming.long_poll import wait_for_message
from streams.log.log import Appended
from streams.model.errors import PayloadTooLarge
from streams.model.events import MAX_TEXT_BYTES, Message, NewMessage
from streams.model.ids import MAX_SEQ, check_project_id

ApiRequest = Request[Caller, object, State]

MAX_BATCH = 500
# What the service says in a message's metadata: readers take these for its word.
_OWN_METADATA = ("response_data", "build_id", "regenerates")
_Bound = Annotated[int | None, QueryParameter(ge=0, le=MAX_SEQ)]
_Limit = Annotated[int, QueryParameter(ge=1, le=500)]
_Wait = Annotated[int | None, QueryParameter(ge=1, le=30)]


class PostedMessage(msgspec.Struct):
    """A message as clients post it."""

    message: Annotated[str, Meta(min_length=1)]
    client_msg_id: Annotated[str, Meta(min_length=1, max_length=128)] | None = None
    parentId: Annotated[str, Meta(min_length=1, max_length=128)] | None = None  # noqa: N815
    metadata: dict[str, Any] | None = None


class PostedBatch(msgspec.Struct):
    """Messages to append in order, all or none."""

    messages: Annotated[list[PostedMessage], Meta(min_length=1, max_length=MAX_BATCH)]


class Receipt(msgspec.Struct):
    """What the sender gets back: the authoritative seq and its own client_msg_id."""

    success: bool
    queued: bool
    duplicate: bool
    client_msg_id: str | None
    projectId: str  # noqa: N815
    seq: int
    messageId: str  # noqa: N815
    timestamp: str


class BatchReceipt(msgspec.Struct):
    """The receipts of a batch, in its order."""

    success: bool
    results: list[Receipt]


class HistoryPage(msgspec.Struct):
    """Messages in order, each in the form of the event's data.

    `hasMore` is whether there are more within the bounds; `nextAfterSeq` is where an ascending
    reader goes on.
    """

    messages: list[Message]
    headSeq: int  # noqa: N815
    hasMore: bool  # noqa: N815
    nextAfterSeq: int | None  # noqa: N815


_REPEAT = ResponseSpec(
    data_container=Receipt, description="A repeat: the first result", generate_examples=False
)


class Messages(Controller):
    """`/v1/projects/{projectId}/chat/messages`"""

    path = "/v1/projects/{project_id:str}/chat/messages"
    tags = ("messages",)

    @post("/", responses={**ERRORS, 200: _REPEAT})
    async def append(
        self, request: ApiRequest, project_id: FromPath[str], data: JSONBody[PostedMessage]
    ) -> Response[Receipt]:
        """Append one message: 201, or 200 for a repeat of its client_msg_id."""
        (appended,) = await append_message(context_of(request), request.user, project_id, data)
        return Response(receipt(appended), status_code=200 if appended.duplicate else 201)

    @post("/batch", responses=ERRORS)
    async def append_batch(
        self, request: ApiRequest, project_id: FromPath[str], data: JSONBody[PostedBatch]
    ) -> BatchReceipt:
        """Append many messages in order, in one transaction."""
        context = context_of(request)
        async with context.posting.admitted(
            request.user, check_project_id(project_id)
        ) as deadline_s:
            most_bytes = context.settings.max_text_bytes
            messages = [
                new_message(request.user.user_id, posted, most_bytes, f"messages[{index}].")
                for index, posted in enumerate(data.messages)
            ]
            appended = await context.log.append_many(project_id, messages, deadline_s=deadline_s)
        return BatchReceipt(success=True, results=[receipt(each) for each in appended])

    @get("/", responses=ERRORS)
    async def history(
        self,
        request: ApiRequest,
        project_id: FromPath[str],
        after_seq: _Bound = None,
        before_seq: _Bound = None,
        limit: _Limit = 50,
        order: FromQuery[Literal["asc", "desc"]] = "asc",
        wait: _Wait = None,
    ) -> Response[HistoryPage]:
        """Return messages between two exclusive bounds; `wait` seconds for one if there is none."""
        context = context_of(request)
        if wait is not None and (after_seq is None or before_seq is not None or order == "desc"):
            raise validation_failed(
                FieldError("wait", "needs after_seq, and neither before_seq nor order=desc")
            )
        await context.access.require(request.user, check_project_id(project_id), "read")
        after = after_seq or 0
        before = MAX_SEQ if before_seq is None else before_seq
        read = functools.partial(
            context.log.history,
            project_id,
            after=after,
            before=before,
            limit=limit,
            descending=order == "desc",
        )
        page = await read()
        if wait is not None and not page.messages and page.head == after:
            await _wait(request, context, project_id, after, wait)
            page = await read()
        messages = page.messages
        # Without holes, what is left between the bounds is a matter of arithmetic.
        if order == "asc":
            last = messages[-1].seq if messages else after
            has_more = bool(messages) and last < min(before - 1, page.head)
            body = HistoryPage(messages, page.head, has_more, last)
        else:
            has_more = bool(messages) and messages[-1].seq > after + 1
            body = HistoryPage(messages, page.head, has_more, None)
        return _cached(request, body, limit)


async def _wait(
    request: ApiRequest, context: Context, project_id: str, after: int, wait_s: float
) -> None:
    """Wait for a message after `after`, no longer than the caller's token lasts."""
    caller = request.user
    if caller.expires_at_s is not None:
        wait_s = max(0.0, min(wait_s, caller.expires_at_s - time.time()))
    await wait_for_message(
        context.streams,
        context.log.tails,
        server_connection_of(request.scope),
        project_id=project_id,
        user_id=caller.user_id,
        after=after,
        wait_s=wait_s,
    )
    # The caller may have lost its membership meanwhile.
    await context.access.require(caller, project_id, "read")


async def append_message(
    context: Context, caller: Caller, project_id: str, posted: PostedMessage
) -> list[Appended]:
    """Append a client's message, if it may; return it when it is committed, as a batch of one."""
    async with context.posting.admitted(caller, check_project_id(project_id)) as deadline_s:
        message = new_message(caller.user_id, posted, context.settings.max_text_bytes)
        return await context.log.append_many(project_id, [message], deadline_s=deadline_s)


def new_message(
    user_id: str, posted: PostedMessage, max_text_bytes: int, place: str = ""
) -> NewMessage:
    """A client's message as the library takes it; `place` is its path in the request's body.

    Raises:
        ApiError: 400, it sets what is the service's own.
        PayloadTooLarge: the text is above the operator's limit.
    """
    # A character has at most four bytes. The library's own limit is checked by the library.
    if (
        max_text_bytes < MAX_TEXT_BYTES
        and len(posted.message) * 4 > max_text_bytes
        and len(posted.message.encode("utf-8", "surrogatepass")) > max_text_bytes
    ):
        raise PayloadTooLarge(f"{place}message", max_text_bytes)
    check_metadata(posted.metadata, place)
    return NewMessage(
        user_id=user_id,
        text=posted.message,
        client_msg_id=posted.client_msg_id,
        parent_id=posted.parentId,
        metadata=posted.metadata,
    )


def check_metadata(metadata: Mapping[str, object] | None, place: str = "") -> None:
    """Raise 400 if a client's metadata sets what is the service's own."""
    for name in _OWN_METADATA if metadata else ():
        # Null says nothing: it is how a message without them is shown.
        if metadata and metadata.get(name) is not None:
            field = f"{place}metadata.{name}"
            raise validation_failed(FieldError(field, "is set by the service alone"))


def receipt(appended: Appended) -> Receipt:
    """The receipt of a committed message."""
    message = appended.message
    return Receipt(
        success=True,
        queued=False,
        duplicate=appended.duplicate,
        client_msg_id=message.client_msg_id,
        projectId=message.project_id,
        seq=message.seq,
        messageId=message.message_id,
        timestamp=message.timestamp,
    )


def _cached(request: ApiRequest, page: HistoryPage, limit: int) -> Response[HistoryPage]:
    messages = page.messages
    if len(messages) < limit or max(messages[0].seq, messages[-1].seq) >= page.headSeq:
        return Response(page, headers={"Cache-Control": "private, no-cache"})
    # Messages never change, so this page never does, whatever its headSeq is.
    etag = f'W/"{messages[0].seq}-{messages[-1].seq}"'
    headers = {"Cache-Control": "private, immutable, max-age=31536000", "ETag": etag}
    known = [tag.strip() for tag in request.headers.get("if-none-match", "").split(",")]
    if etag in known or "*" in known:
        return Response(None, status_code=304, headers=headers)  # type: ignore[arg-type]
    return Response(page, headers=headers)
