"""Builds: list, show, cancel, and the report of a worker outside (docs/protocol.md §4 and §8)."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import msgspec
from litestar import Controller, Request, Response, get, post
from litestar.datastructures import State
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, JSONBody, QueryParameter
from msgspec import Meta

from service.access.identity import Caller
from service.context import context_of
from service.http.api_errors import ApiError, not_found
from service.routes.documents import ERRORS
from streams.builds.build_errors import BuildEnded, BuildHeld, BuildNotFound, LeaseLost
from streams.eventlog import EventLog
from streams.model.build import Build
from streams.model.events import BuildState, format_time
from streams.model.ids import check_project_id

ApiRequest = Request[Caller, object, State]

_Limit = Annotated[int, QueryParameter(ge=1, le=500)]
_Status = Annotated[BuildState | None, QueryParameter()]
_Text = Annotated[str, Meta(max_length=500)]


class BuildView(msgspec.Struct):
    """A build as the members of its project see it."""

    buildId: str  # noqa: N815
    versionId: str  # noqa: N815
    projectId: str  # noqa: N815
    userId: str  # noqa: N815
    status: BuildState
    attempt: int
    progress: float | None
    step: str | None
    message: str | None
    result: Any
    cancelRequested: bool  # noqa: N815
    messageSeq: int  # noqa: N815
    endSeq: int | None  # noqa: N815
    createdAt: str  # noqa: N815
    updatedAt: str  # noqa: N815
    startedAt: str | None  # noqa: N815
    endedAt: str | None  # noqa: N815


class BuildList(msgspec.Struct):
    """Builds of a project, newest first."""

    builds: list[BuildView]


class Report(msgspec.Struct):
    """What a worker outside says of the build that it has, or takes with `in_progress`."""

    status: BuildState
    progress: Annotated[float, Meta(ge=0, le=100)] | None = None
    step: _Text | None = None
    message: _Text | None = None
    result: Any = None


class Reported(msgspec.Struct):
    """The report was taken; `cancelRequested` asks the worker to stop."""

    success: bool
    status: BuildState
    attempt: int
    cancelRequested: bool  # noqa: N815


_BEING_CANCELLED = ResponseSpec(
    data_container=BuildView,
    description="Its worker was notified, and ends it soon",
    generate_examples=False,
)


class BuildRoutes(Controller):
    """`/v1/projects/{projectId}/builds`"""

    path = "/v1/projects/{project_id:str}/builds"
    tags = ("builds",)

    @get("/", responses=ERRORS)
    async def list_builds(
        self,
        request: ApiRequest,
        project_id: FromPath[str],
        status: _Status = None,
        limit: _Limit = 50,
    ) -> BuildList:
        """Return the project's builds, newest first."""
        context = context_of(request)
        await context.access.require(request.user, check_project_id(project_id), "read")
        builds = await context.log.builds.list(project_id, status=status, limit=limit)
        return BuildList([_view(build) for build in builds])

    @get("/{build_id:str}", responses=ERRORS)
    async def show(
        self, request: ApiRequest, project_id: FromPath[str], build_id: FromPath[str]
    ) -> BuildView:
        """Return one build."""
        context = context_of(request)
        await context.access.require(request.user, check_project_id(project_id), "read")
        try:
            return _view(await context.log.builds.get(project_id, build_id))
        except BuildNotFound:
            raise not_found("No such build in this project") from None

    @post(
        "/{build_id:str}/cancel",
        status_code=200,
        responses={**ERRORS, 202: _BEING_CANCELLED},
    )
    async def cancel(
        self, request: ApiRequest, project_id: FromPath[str], build_id: FromPath[str]
    ) -> Response[BuildView]:
        """Cancel a build: 200 when it has ended, 202 while its worker still has to stop it."""
        context = context_of(request)
        await context.access.require(request.user, check_project_id(project_id), "write")
        try:
            build = await context.log.builds.cancel(project_id, build_id)
        except BuildNotFound:
            raise not_found("No such build in this project") from None
        except BuildEnded:
            raise _conflict("BUILD_ENDED", "The build has ended") from None
        return Response(_view(build), status_code=200 if build.ended else 202)

    @post("/{build_id:str}/status", status_code=202, responses=ERRORS)
    async def report(
        self,
        request: ApiRequest,
        project_id: FromPath[str],
        build_id: FromPath[str],
        data: JSONBody[Report],
    ) -> Reported:
        """Take a report of a worker outside. `in_progress` takes a build that nobody has, and
        renews the lease of one's own.
        """
        context = context_of(request)
        await context.access.require(request.user, check_project_id(project_id), "worker")
        worker_id = f"user:{request.user.user_id}"
        lease_s = context.settings.build_lease_s
        try:
            build = await _report(context.log, project_id, build_id, worker_id, lease_s, data)
        except BuildNotFound:
            raise not_found("No such build in this project") from None
        except BuildEnded:
            raise _conflict("BUILD_ENDED", "The build has ended") from None
        except (BuildHeld, LeaseLost):
            raise _conflict("BUILD_HELD", "Another worker has the build") from None
        return Reported(True, build.status, build.attempt, build.cancelled)


async def _report(
    log: EventLog, project_id: str, build_id: str, worker_id: str, lease_s: float, data: Report
) -> Build:
    build = await log.builds.get(project_id, build_id)
    is_own = build.status == "in_progress" and build.worker_id == worker_id
    if build.ended:
        raise BuildEnded("the build has ended")
    if data.status == "queued" or (data.status != "in_progress" and not is_own):
        if build.status == "in_progress" and data.status != "queued":
            raise BuildHeld("another worker has the build")
        raise _conflict(
            "ILLEGAL_TRANSITION", f"A build cannot go from {build.status} to {data.status}"
        )
    if data.status != "in_progress":
        result = None if data.result is None else msgspec.json.encode(data.result)
        return await log.builds.finish(build, data.status, message=data.message, result=result)
    if not is_own:
        build = await log.builds.claim_one(project_id, build_id, worker_id, lease_s=lease_s)
    return await log.builds.report(
        build, progress=data.progress, step=data.step, message=data.message, lease_s=lease_s
    )


def _conflict(code: str, message: str) -> ApiError:
    return ApiError(409, code, message)


def _view(build: Build) -> BuildView:
    return BuildView(
        buildId=build.id,
        versionId=build.version_id,
        projectId=build.project_id,
        userId=build.user_id,
        status=build.status,
        attempt=build.attempt,
        progress=build.progress,
        step=build.step,
        message=build.message,
        result=None if build.result is None else msgspec.json.decode(build.result),
        cancelRequested=build.cancelled,
        messageSeq=build.message_seq,
        endSeq=build.end_seq,
        createdAt=format_time(build.created_at),
        updatedAt=format_time(build.updated_at),
        startedAt=_time(build.started_at),
        endedAt=_time(build.ended_at),
    )


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else format_time(moment)
