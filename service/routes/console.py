"""The operator's console (scope `admin`): this process, one project's tiers, its events' legs.

Read only. What is shown is put together in `service/console/`; no message's text is.
"""

from __future__ import annotations

from typing import Annotated

from litestar import Controller, Request, get
from litestar.datastructures import ResponseHeader, State
from litestar.params import FromPath, QueryParameter

from service.access.identity import Caller
from service.access.membership import require_admin
from service.console.console import Legs
from service.console.overview import Overview
from service.console.project_view import ProjectView
from service.context import context_of
from service.http.api_errors import not_found
from service.routes.documents import ERRORS
from streams.model.errors import ProjectNotFound
from streams.model.ids import MAX_SEQ, check_project_id

ApiRequest = Request[Caller, object, State]

_After = Annotated[int, QueryParameter(ge=0, le=MAX_SEQ)]


class ConsoleRoutes(Controller):
    """`/v1/console`"""

    path = "/v1/console"
    tags = ("operation",)
    # What an operator sees is for the moment, and for nobody else.
    response_headers = (ResponseHeader(name="Cache-Control", value="no-store"),)

    @get("/overview", responses=ERRORS)
    async def overview(self, request: ApiRequest) -> Overview:
        """Return this process, the health of its parts, and the projects with readers here."""
        require_admin(request.user)
        return await context_of(request).console.overview(request.user)

    @get("/projects/{project_id:str}", responses=ERRORS)
    async def project(self, request: ApiRequest, project_id: FromPath[str]) -> ProjectView:
        """Return a project's three tiers, its open streams, unfinished builds and answers."""
        require_admin(request.user, check_project_id(project_id))
        try:
            return await context_of(request).console.project(project_id)
        except ProjectNotFound:
            raise not_found("No such project") from None

    @get("/projects/{project_id:str}/legs", responses=ERRORS)
    async def legs(self, request: ApiRequest, project_id: FromPath[str], after: _After = 0) -> Legs:
        """Return the events that came since number `after`, with the time of each leg.

        The first question begins the watch, which ends 15 s after the last one.
        """
        require_admin(request.user, check_project_id(project_id))
        try:
            return await context_of(request).console.legs(project_id, after)
        except ProjectNotFound:
            raise not_found("No such project") from None
