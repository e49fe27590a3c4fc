"""`POST /v1/chat/unified`: one user message into the assistant flow (PROTOCOL.md §5)."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from litestar import Request, Response, post
from litestar.datastructures import State
from litestar.params import JSONBody
from msgspec import Meta

from service.auth import Caller
from service.context import context_of
from service.errors import forbidden
from service.routes.documents import ERRORS
from service.routes.messages import PostedMessage, Receipt, new_message, receipt

ApiRequest = Request[Caller, object, State]


class UnifiedMessage(PostedMessage, kw_only=True):
    """A user's message to the assistant."""

    projectId: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$")]  # noqa: N815
    mode: Literal["plan", "build"] = "plan"
    buildImmediately: bool = False  # noqa: N815
    userId: str | None = None  # noqa: N815
    stream: bool = False


@post("/v1/chat/unified", tags=["chat"], responses=ERRORS)
async def unified(request: ApiRequest, data: JSONBody[UnifiedMessage]) -> Response[Receipt]:
    """Commit and broadcast the user's message."""
    context = context_of(request)
    caller = request.user
    await context.access.require(caller, data.projectId, "write")
    if data.userId is not None and data.userId != caller.user_id:
        raise forbidden("userId is not the caller")
    await context.post_limit.take(data.projectId, caller.user_id)
    mode: Literal["plan", "build"] = "build" if data.buildImmediately else data.mode
    message = msgspec.structs.replace(new_message(caller.user_id, data), mode=mode)
    (appended,) = await context.log.append_many(data.projectId, [message])
    return Response(receipt(appended), status_code=200 if appended.duplicate else 201)
