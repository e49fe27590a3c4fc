"""`POST /v1/chat/unified`: one user message into the assistant flow (docs/protocol.md §5)."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from litestar import Request, Response, post
from litestar.datastructures import State
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import JSONBody
from msgspec import Meta

from service.access.identity import Caller
from service.access.posting import until
from service.context import Context, context_of
from service.http.api_errors import forbidden, rate_limited
from service.routes.documents import ERRORS
from service.routes.messages import PostedMessage, new_message
from streams.answers.answer_rows import Begun
from streams.builds.build_errors import TooManyBuilds
from streams.log.log import Appended
from streams.model.events import BuildState, Message, NewMessage

ApiRequest = Request[Caller, object, State]

_BUILDS_RETRY_S = 10.0


class UnifiedMessage(PostedMessage, kw_only=True):
    """A user's message to the assistant. `buildImmediately` means mode `build`."""

    projectId: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$")]  # noqa: N815
    mode: Literal["plan", "build"] = "plan"
    buildImmediately: bool = False  # noqa: N815
    userId: str | None = None  # noqa: N815
    stream: bool = False


class UnifiedReceipt(msgspec.Struct, omit_defaults=True, kw_only=True):
    """What the sender gets back.

    Mode `plan`: `assistant` is the answer, or with `stream` `assistantMessageId` names what it
    will be. Mode `build`: the build that a worker will carry out.
    """

    success: bool
    queued: bool
    duplicate: bool
    client_msg_id: str | None
    projectId: str  # noqa: N815
    seq: int
    messageId: str  # noqa: N815
    timestamp: str
    assistant: Message | None = None
    assistantMessageId: str | None = None  # noqa: N815
    buildId: str | None = None  # noqa: N815
    versionId: str | None = None  # noqa: N815
    status: BuildState | None = None


_REPEAT = ResponseSpec(
    data_container=UnifiedReceipt,
    description="A repeat of the client_msg_id: the first result",
    generate_examples=False,
)


@post("/v1/chat/unified", tags=["chat"], responses={**ERRORS, 200: _REPEAT})
async def unified(request: ApiRequest, data: JSONBody[UnifiedMessage]) -> Response[UnifiedReceipt]:
    """Commit and broadcast the user's message; answer it, or queue a build."""
    context = context_of(request)
    caller = request.user
    mode: Literal["plan", "build"] = "build" if data.buildImmediately else data.mode
    async with context.posting.admitted(caller, data.projectId) as deadline_s, until(deadline_s):
        if data.userId is not None and data.userId != caller.user_id:
            raise forbidden("userId is not the caller")
        message = msgspec.structs.replace(
            new_message(caller.user_id, data, context.settings.max_text_bytes), mode=mode
        )
        if mode == "build":
            made = await _build(context, data.projectId, message)
        else:
            begun = await context.answers.start(data.projectId, message, stream=data.stream)
    if mode == "plan":
        made = await _answered(context, begun, stream=data.stream)
    return Response(made, status_code=200 if made.duplicate else 201)


async def _build(context: Context, project_id: str, message: NewMessage) -> UnifiedReceipt:
    try:
        asked = await context.log.builds.ask(project_id, message)
    except TooManyBuilds as error:
        context.metrics.rate_limited.inc()
        # Room comes when a build ends, and nobody knows when that is.
        raise rate_limited(_BUILDS_RETRY_S, f"{str(error).capitalize()}; wait for some") from None
    receipt = _receipt(asked.appended, queued=True)
    receipt.buildId = asked.build.id
    receipt.versionId = asked.build.version_id
    # As it was first answered, whatever has become of the build (G5).
    receipt.status = "queued"
    return receipt


async def _answered(context: Context, begun: Begun, *, stream: bool) -> UnifiedReceipt:
    receipt = _receipt(begun.appended, queued=stream)
    receipt.assistantMessageId = begun.answer.id
    if not stream:
        receipt.assistant = await context.answers.wait(begun.answer)
    return receipt


def _receipt(appended: Appended, *, queued: bool) -> UnifiedReceipt:
    message = appended.message
    return UnifiedReceipt(
        success=True,
        queued=queued,
        duplicate=appended.duplicate,
        client_msg_id=message.client_msg_id,
        projectId=message.project_id,
        seq=message.seq,
        messageId=message.message_id,
        timestamp=message.timestamp,
    )
