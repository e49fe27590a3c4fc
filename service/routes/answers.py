"""Answers of the assistant: how far one is, and stopping it (docs/protocol.md §4 and §5)."""

from __future__ import annotations

from typing import Literal

import msgspec
from litestar import Controller, Request, Response, get, post
from litestar.datastructures import State
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath

from service.access.identity import Caller
from service.access.posting import until
from service.context import context_of
from service.http.api_errors import ApiError, not_found
from service.routes.documents import ERRORS
from streams.answers.answer_values import AnswerStatus
from streams.answers.pieces import Part
from streams.model.ids import check_project_id

ApiRequest = Request[Caller, object, State]


class AnswerView(msgspec.Struct, omit_defaults=True):
    """How far an answer is. `index` is the last `message.delta` that an unfinished text contains.

    `text` may lack what was written within the last second. Once it has ended, it is the message's.
    """

    messageId: str  # noqa: N815
    replyTo: str  # noqa: N815
    status: AnswerStatus
    text: str
    parts: list[Part] = []
    index: int | None = None


class StopReceipt(msgspec.Struct):
    """What becomes of an answer that was asked to stop."""

    messageId: str  # noqa: N815
    status: Literal["stopping", "completed", "stopped", "failed"]


_ENDED = ResponseSpec(
    data_container=StopReceipt,
    description="The answer had ended before",
    generate_examples=False,
)


class Answers(Controller):
    """Answers of a project, by the id of the message that each becomes."""

    path = "/v1/projects/{project_id:str}/answers/{message_id:str}"
    tags = ("answers",)

    @get("/", responses=ERRORS)
    async def show(
        self, request: ApiRequest, project_id: FromPath[str], message_id: FromPath[str]
    ) -> AnswerView:
        """Return how far an answer is."""
        context = context_of(request)
        await context.access.require(request.user, check_project_id(project_id), "read")
        state = await context.log.answers.state(project_id, message_id)
        if state is None:
            raise _no_answer()
        answer = state.answer
        return AnswerView(
            messageId=answer.id,
            replyTo=answer.reply_to,
            status=state.status,
            text=state.text,
            parts=state.parts,
            index=state.index if state.status == "in_progress" else None,
        )

    @post("/stop", status_code=202, responses={**ERRORS, 200: _ENDED})
    async def stop(
        self, request: ApiRequest, project_id: FromPath[str], message_id: FromPath[str]
    ) -> Response[StopReceipt]:
        """Stop an answer: 202, it ends with the text so far; 200 when it has ended before."""
        context = context_of(request)
        caller = request.user
        check_project_id(project_id)
        # Counts as a post: a stop writes.
        async with context.posting.admitted(caller, project_id) as deadline_s, until(deadline_s):
            asked = await context.log.answers.stop(project_id, message_id, caller.user_id)
        if asked is None:
            raise _no_answer()
        if asked.status == "in_progress":
            return Response(StopReceipt(asked.answer.id, "stopping"), status_code=202)
        return Response(StopReceipt(asked.answer.id, asked.status), status_code=200)


def _no_answer() -> ApiError:
    return not_found("No such answer in this project")
