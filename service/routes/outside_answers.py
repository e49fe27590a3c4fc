"""Answers that assistants outside write: begin, pieces, end (docs/protocol.md §4 and §5).

A worker needs membership and the scope `worker`, and writes its own answers alone.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from litestar import Controller, Request, Response, post
from litestar.datastructures import State
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, JSONBody
from msgspec import Meta

from service.access.identity import Caller
from service.access.posting import until
from service.context import context_of
from service.http.api_errors import FieldError, validation_failed
from service.routes.documents import ERRORS
from service.routes.messages import check_metadata
from streams.answers.answer_values import AnswerStatus
from streams.answers.pieces import MAX_PIECE_BYTES, Piece, PieceKind, part_piece, text_piece
from streams.answers.row_values import key_of
from streams.model.errors import InvalidInput, PayloadTooLarge
from streams.model.ids import check_project_id

ApiRequest = Request[Caller, object, State]

MAX_PARTS = 200


class NewAnswer(msgspec.Struct):
    """The message that is answered, by its `messageId`."""

    replyTo: Annotated[str, Meta(min_length=1, max_length=128)]  # noqa: N815
    client_msg_id: Annotated[str, Meta(min_length=1, max_length=128)] | None = None


class BegunAnswer(msgspec.Struct):
    """An answer that the caller writes; `nextIndex` is the index of its next piece."""

    messageId: str  # noqa: N815
    projectId: str  # noqa: N815
    replyTo: str  # noqa: N815
    status: AnswerStatus
    nextIndex: int  # noqa: N815


class NewPart(msgspec.Struct):
    """A piece of an answer: `delta` of kind `text`, `data` (any JSON) of another kind."""

    kind: PieceKind = "text"
    delta: str | None = None
    data: Any = msgspec.UNSET


class NewPieces(msgspec.Struct):
    """Pieces; `index` is the first one's. Without pieces the lease is renewed alone."""

    index: Annotated[int, Meta(ge=0)]
    parts: Annotated[list[NewPart], Meta(max_length=MAX_PARTS)]


class Taken(msgspec.Struct):
    """What was taken: `nextIndex` comes next, unless a member stopped the answer."""

    stopRequested: bool  # noqa: N815
    nextIndex: int  # noqa: N815


class AnswerEnd(msgspec.Struct):
    """How the answer ends; `text` replaces what was written."""

    status: Literal["completed", "stopped", "failed"]
    text: str | None = None
    metadata: dict[str, Any] | None = None
    reason: Annotated[str, Meta(max_length=500)] | None = None


class AnswerEndReceipt(msgspec.Struct):
    """How the answer ended, and the seq of its message."""

    messageId: str  # noqa: N815
    status: AnswerStatus
    seq: int


_REPEAT = ResponseSpec(
    data_container=BegunAnswer,
    description="A repeat: the first answer, as it is now",
    generate_examples=False,
)


class OutsideAnswerRoutes(Controller):
    """`/v1/projects/{projectId}/answers`"""

    path = "/v1/projects/{project_id:str}/answers"
    tags = ("answers",)

    @post("/", responses={**ERRORS, 200: _REPEAT})
    async def begin(
        self, request: ApiRequest, project_id: FromPath[str], data: JSONBody[NewAnswer]
    ) -> Response[BegunAnswer]:
        """Begin an answer to a message: 201, or 200 for a repeat of the client_msg_id."""
        context = context_of(request)
        caller = request.user
        admitted = context.posting.admitted(caller, check_project_id(project_id), "worker")
        async with admitted as deadline_s, until(deadline_s):
            begun = await context.log.outside_answers.begin(
                project_id, data.replyTo, caller.user_id, client_msg_id=data.client_msg_id
            )
        answer = begun.answer
        body = BegunAnswer(answer.id, project_id, answer.reply_to, begun.status, begun.received)
        return Response(body, status_code=201 if begun.is_new else 200)

    @post("/{message_id:str}/deltas", status_code=200, responses=ERRORS)
    async def deltas(
        self,
        request: ApiRequest,
        project_id: FromPath[str],
        message_id: FromPath[str],
        data: JSONBody[NewPieces],
    ) -> Taken:
        """Take pieces and renew the lease of 30 seconds. Known indexes are dropped."""
        context = context_of(request)
        user_id = request.user.user_id
        await context.access.require(request.user, check_project_id(project_id), "worker")
        pieces = [_piece(part, f"parts[{number}].") for number, part in enumerate(data.parts)]
        # However the id is written, its pace is one.
        answer_id = str(key_of(message_id) or message_id)
        await context.answer_pace.turn(user_id, answer_id)
        async with until(context.posting.deadline_s()):
            received = await context.log.outside_answers.receive(
                project_id, answer_id, user_id, data.index, pieces
            )
        context.answer_pace.count(user_id, answer_id, len(received.pieces))
        return Taken(received.is_stop_requested, received.next_index)

    @post("/{message_id:str}/end", status_code=200, responses=ERRORS)
    async def end(
        self,
        request: ApiRequest,
        project_id: FromPath[str],
        message_id: FromPath[str],
        data: JSONBody[AnswerEnd],
    ) -> AnswerEndReceipt:
        """End an answer; one that has ended stays as it is, and the response says how."""
        context = context_of(request)
        caller = request.user
        admitted = context.posting.admitted(caller, check_project_id(project_id), "worker")
        async with admitted as deadline_s, until(deadline_s):
            check_metadata(data.metadata)
            ended = await context.log.outside_answers.end(
                project_id,
                message_id,
                caller.user_id,
                data.status,
                text=data.text,
                metadata=data.metadata,
                reason=data.reason,
            )
        assert ended.answer.end_seq is not None
        return AnswerEndReceipt(ended.answer.id, ended.status, ended.answer.end_seq)


def _piece(part: NewPart, place: str) -> Piece:
    """Return a part as a piece; `place` is its path in the request's body."""
    if part.kind == "text":
        if part.delta is None:
            raise validation_failed(FieldError(f"{place}delta", "is required"))
        if part.data is not msgspec.UNSET:
            raise validation_failed(FieldError(f"{place}data", "is not for kind text"))
        return text_piece(part.delta)
    if part.delta is not None:
        raise validation_failed(FieldError(f"{place}delta", "is for kind text alone"))
    if part.data is msgspec.UNSET:
        raise validation_failed(FieldError(f"{place}data", "is required"))
    try:
        return part_piece(part.kind, part.data)
    except PayloadTooLarge:
        raise PayloadTooLarge(f"{place}data", MAX_PIECE_BYTES) from None
    except InvalidInput as error:
        raise InvalidInput(f"{place}data", error.message) from None
