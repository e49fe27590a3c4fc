"""Projects, their members, and tokens for their streams."""

from __future__ import annotations

import secrets
import time
from datetime import UTC, datetime
from typing import Annotated

import msgspec
from litestar import Controller, Request, Response, delete, get, post, put
from litestar.datastructures import Cookie, State
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, JSONBody, QueryParameter
from msgspec import Meta

from service.access.credentials import COOKIE, PLAIN_COOKIE
from service.access.identity import Caller
from service.access.membership import require_scope
from service.access.origin import is_plain_loopback
from service.access.tokens import mint_token
from service.context import context_of
from service.http.api_errors import FieldError, project_access_denied, validation_failed
from service.routes.documents import ERRORS
from streams.log.projects import Project
from streams.model.events import format_time
from streams.model.ids import check_project_id, check_user_id

MAX_TTL_S = 86_400
MAX_MEMBERS = 1000
_After = Annotated[str | None, QueryParameter()]

ApiRequest = Request[Caller, object, State]


class NewProject(msgspec.Struct):
    """A project to create. Without an id it gets one."""

    name: Annotated[str, Meta(min_length=1, max_length=200)]
    id: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$")] | None = None


class ProjectView(msgspec.Struct, omit_defaults=True):
    """A project as its members see it; `members` are the collaborators' user ids, in order.

    `membersNext` is there when there are more: the next `members_after`.
    """

    id: str
    name: str
    ownerId: str  # noqa: N815
    createdAt: str  # noqa: N815
    headSeq: int  # noqa: N815
    members: list[str] | None = None
    membersNext: str | None = None  # noqa: N815


class TokenRequest(msgspec.Struct):
    """How long a stream token shall be good for, and whether it goes into a cookie."""

    cookie: bool = False
    ttlSeconds: Annotated[int, Meta(ge=1, le=MAX_TTL_S)] = 3600  # noqa: N815


class StreamToken(msgspec.Struct):
    """A token that opens the project's stream."""

    token: str
    expiresAt: str  # noqa: N815


_NO_STORE = {"Cache-Control": "no-store"}
_IN_COOKIE = ResponseSpec(
    data_container=None, description="The token is in a cookie", generate_examples=False
)
_REPEAT = ResponseSpec(
    data_container=ProjectView, description="A repeat by the same owner", generate_examples=False
)


class Projects(Controller):
    """`/v1/projects`"""

    path = "/v1/projects"
    tags = ("projects",)

    @post("/", responses={**ERRORS, 200: _REPEAT})
    async def create(
        self, request: ApiRequest, data: JSONBody[NewProject]
    ) -> Response[ProjectView]:
        """Create a project; the caller owns it. The same id by the same owner again: 200.

        An id of another's project is answered as that project is to a stranger.
        """
        context = context_of(request)
        caller = request.user
        require_scope(caller, "write")
        if "\x00" in data.name:
            raise validation_failed(FieldError("name", "must not contain the character U+0000"))
        # A token made for some projects cannot make others.
        if caller.projects is not None and (data.id is None or data.id not in caller.projects):
            raise project_access_denied()
        # That an id is taken can be found out by trying: not at any rate.
        context.creations.take(caller.user_id)
        project_id = data.id or secrets.token_hex(12)
        project, is_new = await context.log.projects.create(project_id, caller.user_id, data.name)
        return Response(_view(project), status_code=201 if is_new else 200)

    @get("/{project_id:str}", responses=ERRORS)
    async def show(
        self, request: ApiRequest, project_id: FromPath[str], members_after: _After = None
    ) -> ProjectView:
        """Return a project with its members, at most 1,000 of them."""
        context = context_of(request)
        await context.access.require(request.user, check_project_id(project_id), "read")
        after = "" if members_after is None else check_user_id(members_after, "members_after")
        project = await context.log.projects.get(project_id)
        members = await context.log.projects.members(project_id, after=after, limit=MAX_MEMBERS + 1)
        return _view(project, members)

    @put("/{project_id:str}/members/{user_id:str}", status_code=204, responses=ERRORS)
    async def add_member(
        self, request: ApiRequest, project_id: FromPath[str], user_id: FromPath[str]
    ) -> None:
        """Make a user a collaborator. The owner alone may do so; a repeat changes nothing."""
        context = context_of(request)
        project = await self._owned(request, project_id)
        check_user_id(user_id)
        if user_id != project.owner_id:
            await context.log.projects.add_member(project_id, user_id)

    @delete("/{project_id:str}/members/{user_id:str}", status_code=204, responses=ERRORS)
    async def remove_member(
        self, request: ApiRequest, project_id: FromPath[str], user_id: FromPath[str]
    ) -> None:
        """Take a user out of the collaborators; its open streams end within seconds."""
        context = context_of(request)
        project = await self._owned(request, project_id)
        check_user_id(user_id)
        if user_id == project.owner_id:
            raise validation_failed(FieldError("userId", "is the owner, who cannot be removed"))
        await context.log.projects.remove_member(project_id, user_id)
        context.streams.close_user(project_id, user_id)
        await context.access.revoked(project_id, user_id)

    @post("/{project_id:str}/stream-tokens", responses={**ERRORS, 204: _IN_COOKIE})
    async def mint(
        self,
        request: ApiRequest,
        project_id: FromPath[str],
        data: JSONBody[TokenRequest | None] = None,
    ) -> Response[StreamToken]:
        """Mint a token with scope `read` for this project alone, for a browser's EventSource."""
        context = context_of(request)
        caller = request.user
        wanted = data or TokenRequest()
        # Without `write` it could prolong itself; without `read` it would gain what it has not.
        await context.access.require(caller, check_project_id(project_id), "write")
        require_scope(caller, "read")
        now_s = int(time.time())
        expires_at_s = now_s + wanted.ttlSeconds
        if caller.expires_at_s is not None:
            expires_at_s = min(expires_at_s, int(caller.expires_at_s))
        token = mint_token(
            context.settings.token_secrets[0],
            user_id=caller.user_id,
            expires_at_s=expires_at_s,
            projects=[project_id],
        )
        if wanted.cookie:
            cookie = _cookie(request, token, max_age_s=max(0, expires_at_s - now_s))
            return Response(
                None,  # type: ignore[arg-type]
                status_code=204,
                headers=_NO_STORE,
                cookies=[cookie],
            )
        expires_at = format_time(datetime.fromtimestamp(expires_at_s, UTC))
        return Response(StreamToken(token, expires_at), headers=_NO_STORE)

    async def _owned(self, request: ApiRequest, project_id: str) -> Project:
        context = context_of(request)
        await context.access.require(request.user, check_project_id(project_id), "write")
        project = await context.log.projects.get(project_id)
        if project.owner_id != request.user.user_id:
            raise project_access_denied()
        return project


def _cookie(request: ApiRequest, token: str, *, max_age_s: int) -> Cookie:
    plain = is_plain_loopback(request.scope["headers"], request.scope["scheme"])
    return Cookie(
        key=PLAIN_COOKIE if plain else COOKIE,
        value=token,
        path="/",
        max_age=max_age_s,
        secure=not plain,
        httponly=True,
        samesite="strict",
    )


def _view(project: Project, members: list[str] | None = None) -> ProjectView:
    return ProjectView(
        id=project.id,
        name=project.name,
        ownerId=project.owner_id,
        createdAt=format_time(project.created_at),
        headSeq=project.head,
        members=None if members is None else members[:MAX_MEMBERS],
        membersNext=members[MAX_MEMBERS - 1] if members and len(members) > MAX_MEMBERS else None,
    )
