"""Answers, for the members of a project: how far one is, stop and regenerate (docs/protocol.md §5).

How assistants outside write theirs is in `outside_answers.py`.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from litestar import Controller, Request, Response, get, post
from litestar.datastructures import State
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, JSONBody
from msgspec import Meta

from service.access.identity import Caller
from service.access.posting import until
from service.context import context_of
from service.http.api_errors import ApiError, not_found
from service.routes.documents import ERRORS
from streams.answers.answer_values import AnswerStatus
from streams.answers.pieces import Part
from streams.model.events import check_opaque_id
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


class Regeneration(msgspec.Struct):
    """Who repeats the request with the same `client_msg_id` gets the first answer."""

    client_msg_id: Annotated[str, Meta(min_length=1, max_length=128)] | None = None


class Regenerated(msgspec.Struct):
    """The answer that was begun; `regenerates` is the one before."""

    messageId: str  # noqa: N815
    replyTo: str  # noqa: N815
    regenerates: str
    status: AnswerStatus


class StopReceipt(msgspec.Struct):
    """What becomes of an answer that was asked to stop."""

    messageId: str  # noqa: N815
    status: Literal["stopping", "completed", "stopped", "failed"]


_REPEAT = ResponseSpec(
    data_container=Regenerated, description="A repeat: the first result", generate_examples=False
)
_ENDED = ResponseSpec(
    data_container=StopReceipt,
    description="The answer has ended",
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
        """Stop an answer: 202, it ends with the text so far; 200 when it has ended.

        One that is written outside ends at once.
        """
        context = context_of(request)
        caller = request.user
        check_project_id(project_id)
        # Counts as a post: a stop writes.
        async with context.posting.admitted(caller, project_id) as deadline_s, until(deadline_s):
            asked = await context.log.answers.stop(project_id, message_id, caller.user_id)
            if asked is None:
                raise _no_answer()
            status = asked.status
            if asked.answer.is_outside and status == "in_progress":
                status = await context.log.outside_answers.stop(asked.answer)
        if status == "in_progress":
            return Response(StopReceipt(asked.answer.id, "stopping"), status_code=202)
        return Response(StopReceipt(asked.answer.id, status), status_code=200)

    @post("/regenerate", responses={**ERRORS, 200: _REPEAT})
    async def regenerate(
        self,
        request: ApiRequest,
        project_id: FromPath[str],
        message_id: FromPath[str],
        data: JSONBody[Regeneration | None] = None,
    ) -> Response[Regenerated]:
        """Begin another answer to the same message: 201, or 200 for a repeat.

        One that was written outside is begun for the same worker.
        """
        context = context_of(request)
        caller = request.user
        client_msg_id = data.client_msg_id if data else None
        check_project_id(project_id)
        if client_msg_id is not None:
            check_opaque_id(client_msg_id, "client_msg_id")
        async with context.posting.admitted(caller, project_id) as deadline_s, until(deadline_s):
            state = await context.log.answers.state(project_id, message_id)
            if state is None:
                raise _no_answer()
            before = state.answer
            again = context.answers.regenerate
            if before.is_outside:
                again = context.log.outside_answers.begin_again
            begun = await again(before, caller.user_id, client_msg_id=client_msg_id)
        answer = begun.answer
        body = Regenerated(answer.id, answer.reply_to, before.id, begun.status)
        return Response(body, status_code=201 if begun.is_new else 200)


def _no_answer() -> ApiError:
    return not_found("No such answer in this project")
