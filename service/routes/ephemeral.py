"""Typing and presence: events that are sent to the readers of a project and never stored."""

from __future__ import annotations

import msgspec
from litestar import Request, get, post
from litestar.datastructures import State
from litestar.params import FromPath, JSONBody

from service.access.identity import Caller
from service.context import context_of
from service.routes.documents import ERRORS
from streams.model.ids import check_project_id

ApiRequest = Request[Caller, object, State]


class TypingState(msgspec.Struct):
    """Whether the caller types."""

    typing: bool


class TypingTaken(msgspec.Struct):
    """The state was accepted. An event is sent only when it changes what readers know."""

    success: bool


class OnlineUser(msgspec.Struct):
    """A user with a stream open in the project."""

    userId: str  # noqa: N815
    since: str


class PresenceView(msgspec.Struct):
    """Who is online, in order of arrival."""

    users: list[OnlineUser]


@post(
    "/v1/projects/{project_id:str}/chat/typing",
    status_code=202,
    tags=["ephemeral"],
    responses=ERRORS,
)
async def typing(
    request: ApiRequest, project_id: FromPath[str], data: JSONBody[TypingState]
) -> TypingTaken:
    """Announce to the project's readers that the caller types; it ends by itself after 6 s."""
    context = context_of(request)
    await context.access.require(request.user, check_project_id(project_id), "write")
    await context.log.typing.say(project_id, request.user.user_id, data.typing)
    return TypingTaken(True)


@get("/v1/projects/{project_id:str}/presence", tags=["ephemeral"], responses=ERRORS)
async def presence(request: ApiRequest, project_id: FromPath[str]) -> PresenceView:
    """Return who is online."""
    context = context_of(request)
    await context.access.require(request.user, check_project_id(project_id), "read")
    online = await context.log.presence.online(project_id)
    return PresenceView([OnlineUser(each.user_id, each.since) for each in online])
