"""docs/protocol.md §3 on every route of §4: who has access, and how others are refused."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import NamedTuple

import httpx
import msgspec
import pytest

from tests.acceptance.conftest import Project, Services
from tests.support.signing import signed_headers, token

_NO_BUILD = "00000000-0000-4000-8000-000000000000"
_NO_ANSWER = "00000000-0000-4000-8000-000000000001"
_ALL = {"read", "write", "worker"}


class Route(NamedTuple):
    """A route and the scopes it requires. `{id}` in path and body is the project id."""

    method: str
    path: str
    scopes: set[str]
    body: str = ""
    owner_only: bool = False

    @property
    def documented(self) -> tuple[str, str]:
        """Method and path of the route in the OpenAPI document."""
        path = self.path.replace("{id}", "{project_id}").replace(_NO_BUILD, "{build_id}")
        path = path.replace(_NO_ANSWER, "{message_id}")
        return self.method.lower(), path.replace("members/bob", "members/{user_id}")


_P = "/v1/projects/{id}"
ROUTES = [
    Route("POST", "/v1/projects", {"write"}, '{"id":"{id}","name":"x"}'),
    Route("GET", _P, {"read"}),
    Route("PUT", f"{_P}/members/bob", {"write"}, owner_only=True),
    Route("DELETE", f"{_P}/members/bob", {"write"}, owner_only=True),
    Route("POST", f"{_P}/stream-tokens", {"read", "write"}, "{}"),
    Route("POST", "/v1/chat/unified", {"write"}, '{"projectId":"{id}","message":"x"}'),
    Route("POST", f"{_P}/chat/messages", {"write"}, '{"message":"x"}'),
    Route("POST", f"{_P}/chat/messages/batch", {"write"}, '{"messages":[{"message":"x"}]}'),
    Route("GET", f"{_P}/chat/messages", {"read"}),
    Route("GET", f"{_P}/chat/stream", {"read"}),
    Route("POST", f"{_P}/chat/typing", {"write"}, '{"typing":false}'),
    Route("GET", f"{_P}/presence", {"read"}),
    Route("GET", f"{_P}/answers/{_NO_ANSWER}", {"read"}),
    Route("POST", f"{_P}/answers/{_NO_ANSWER}/stop", {"write"}),
    Route("POST", f"{_P}/answers/{_NO_ANSWER}/regenerate", {"write"}, "{}"),
    Route("POST", f"{_P}/answers", {"worker"}, f'{{"replyTo":"{_NO_ANSWER}"}}'),
    Route("POST", f"{_P}/answers/{_NO_ANSWER}/deltas", {"worker"}, '{"index":0,"parts":[]}'),
    Route("POST", f"{_P}/answers/{_NO_ANSWER}/end", {"worker"}, '{"status":"failed"}'),
    Route("GET", f"{_P}/builds", {"read"}),
    Route("GET", f"{_P}/builds/{_NO_BUILD}", {"read"}),
    Route("POST", f"{_P}/builds/{_NO_BUILD}/cancel", {"write"}),
    Route("POST", f"{_P}/builds/{_NO_BUILD}/status", {"worker"}, '{"status":"in_progress"}'),
]
PROJECT_ROUTES = [route for route in ROUTES if route.path != "/v1/projects"]
each_route = pytest.mark.parametrize("route", ROUTES, ids=lambda r: f"{r.method} {r.path}")
each_project_route = pytest.mark.parametrize(
    "route", PROJECT_ROUTES, ids=lambda r: f"{r.method} {r.path}"
)


class RouteCaller:
    """Calls the routes of one project with any credentials."""

    def __init__(self, http: httpx.AsyncClient, project: Project) -> None:
        self._http = http
        self._project = project

    async def call(
        self,
        route: Route,
        headers: dict[str, str],
        *,
        project_id: str | None = None,
        query: str = "",
    ) -> tuple[int, str, bytes]:
        """Return status, error code and body; code and body are empty unless it is an error."""
        target, content = self._filled(route, project_id)
        sent = {"Content-Type": "application/json", "X-Request-Id": "same", **headers}
        async with self._http.stream(
            route.method, target + query, content=content or None, headers=sent
        ) as answer:
            if answer.status_code < 400:
                return answer.status_code, "", b""
            body = await answer.aread()
            return answer.status_code, msgspec.json.decode(body)["code"], body

    async def signed(
        self, route: Route, user_id: str, *, scope: str, project_id: str | None = None
    ) -> tuple[int, str, bytes]:
        """Call the route with a signed request."""
        target, content = self._filled(route, project_id)
        headers = signed_headers(route.method, target, user_id, content, scope=scope)
        return await self.call(route, headers, project_id=project_id)

    def _filled(self, route: Route, project_id: str | None) -> tuple[str, bytes]:
        project_id = project_id or self._project.id
        target = route.path.replace("{id}", project_id)
        return target, route.body.replace("{id}", project_id).encode()


@pytest.fixture
async def caller(services: Services, project: Project) -> AsyncIterator[RouteCaller]:
    """A caller of a project that has the member `collab`."""
    await project.api.add_member(project.id, "collab")
    async with httpx.AsyncClient(base_url=services.b.url, trust_env=False) as http:
        yield RouteCaller(http, project)


def _bearer(user_id: str, **more: object) -> dict[str, str]:
    return {"Authorization": f"Bearer {token(user_id, **more)}"}  # type: ignore[arg-type]


async def test_every_documented_route_is_in_the_table(services: Services) -> None:
    """§4: a new route without a row here would have no access test."""
    async with httpx.AsyncClient(base_url=services.a.url, trust_env=False) as http:
        paths = (await http.get("/schema/openapi.json")).json()["paths"]
    documented = {
        (method, path)
        for path, item in paths.items()
        for method in item
        # The operator's routes need no membership: `test_console.py`.
        if path.startswith("/v1/") and not path.startswith("/v1/console/")
    }
    assert documented == {route.documented for route in ROUTES}


@each_route
async def test_a_member_with_the_required_scopes_has_access(
    caller: RouteCaller, route: Route
) -> None:
    """§3: with exactly the scopes that the route requires, by token and by signature."""
    scope = " ".join(sorted(route.scopes))
    by_token = await caller.call(route, _bearer("owner", scope=scope))
    signed = await caller.signed(route, "owner", scope=scope)
    for status, code, _ in (by_token, signed):
        # No build, no answer and no message has this id.
        named = route.path + route.body
        is_nothing = _NO_BUILD in named or _NO_ANSWER in named
        assert status < 400 or (status == 404 and is_nothing), code


@each_route
async def test_requests_without_valid_credentials_are_401(
    caller: RouteCaller, route: Route
) -> None:
    """§3: missing, bad, expired and misplaced credentials: there is no anonymous fallback."""
    target = route.path.replace("{id}", "x")
    half = signed_headers(route.method, target, "owner")
    del half["X-Seqstream-Timestamp"]
    for headers in (
        {},
        _bearer("owner", scope="read write worker", ttl_s=-5),
        _bearer("owner", scope="read write worker", secret="x" * 40),
        _bearer("owner", scope="read write owner"),
        signed_headers(route.method, "/v1/another", "owner"),
        half,
        {"Cookie": "seqstream_token=x"},
    ):
        assert (await caller.call(route, headers))[:2] == (401, "UNAUTHENTICATED"), headers
    if not route.path.endswith("/stream"):
        query = f"?token={token('owner', scope='read write worker')}"
        assert (await caller.call(route, {}, query=query))[:2] == (401, "UNAUTHENTICATED")


@each_project_route
async def test_a_stranger_cannot_tell_whether_a_project_exists(
    caller: RouteCaller, route: Route
) -> None:
    """§3: a foreign and an unknown project give the same 403, whatever the scopes are."""
    for scope in ("read", "write", "worker", "read write worker"):
        stranger = await caller.signed(route, "stranger", scope=scope)
        nothing = await caller.signed(route, "stranger", scope=scope, project_id="acc-none")
        assert stranger == nothing
        assert stranger[:2] == (403, "UNAUTHORIZED_PROJECT_ACCESS")


@each_route
async def test_a_token_for_other_projects_is_refused_as_a_strangers(
    caller: RouteCaller, route: Route
) -> None:
    """§3: outside its `projects` a token gets the 403 of a stranger, even the owner's token."""
    for projects in ([], ["acc-other"]):
        headers = _bearer("owner", scope="read write worker", projects=projects)
        refused = await caller.call(route, headers)
        assert refused[:2] == (403, "UNAUTHORIZED_PROJECT_ACCESS")


@each_route
async def test_a_missing_scope_is_403(caller: RouteCaller, route: Route) -> None:
    """§3: the code is `FORBIDDEN`, by token and by signature."""
    for missing in route.scopes:
        scope = " ".join(sorted(_ALL - {missing}))
        by_token = await caller.call(route, _bearer("owner", scope=scope))
        signed = await caller.signed(route, "owner", scope=scope)
        assert by_token[:2] == signed[:2] == (403, "FORBIDDEN")


@each_project_route
async def test_a_collaborator_may_use_all_routes_but_the_owners(
    caller: RouteCaller, route: Route
) -> None:
    """§4: only the owner adds and removes members."""
    status, code, _ = await caller.signed(route, "collab", scope="read write worker")
    if route.owner_only:
        assert (status, code) == (403, "UNAUTHORIZED_PROJECT_ACCESS")
    else:
        assert status not in (401, 403)


@each_route
async def test_a_write_by_cookie_without_an_allowed_origin_is_refused(
    caller: RouteCaller, route: Route
) -> None:
    """§3: writing routes need an allowed `Origin`; reading routes do not."""
    cookie = {"Cookie": f"__Host-seqstream={token('owner', scope='read write worker')}"}
    for origin in ({}, {"Origin": "https://evil.example"}):
        status, code, _ = await caller.call(route, {**cookie, **origin})
        if route.method == "GET":
            assert status in (200, 404)
        else:
            assert (status, code) == (403, "FORBIDDEN")
