"""docs/protocol.md §3 for every route of §4: who is let in, and what the others are told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import NamedTuple

import httpx
import msgspec
import pytest

from tests.acceptance.conftest import Project, Services
from tests.support.signing import signed_headers, token

_NO_BUILD = "00000000-0000-4000-8000-000000000000"
_ALL = {"read", "write", "worker"}


class Route(NamedTuple):
    """A route, and what its caller needs. `{id}` in path and body is the project's."""

    method: str
    path: str
    scopes: set[str]
    body: str = ""
    owner_only: bool = False

    @property
    def documented(self) -> tuple[str, str]:
        """The route as the OpenAPI document names it."""
        path = self.path.replace("{id}", "{project_id}").replace(_NO_BUILD, "{build_id}")
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
    Route("GET", f"{_P}/builds", {"read"}),
    Route("GET", f"{_P}/builds/{_NO_BUILD}", {"read"}),
    Route("POST", f"{_P}/builds/{_NO_BUILD}/cancel", {"write"}),
    Route("POST", f"{_P}/builds/{_NO_BUILD}/status", {"worker"}, '{"status":"in_progress"}'),
]
OF_A_PROJECT = [route for route in ROUTES if route.path != "/v1/projects"]
each_route = pytest.mark.parametrize("route", ROUTES, ids=lambda r: f"{r.method} {r.path}")
each_route_of_a_project = pytest.mark.parametrize(
    "route", OF_A_PROJECT, ids=lambda r: f"{r.method} {r.path}"
)


class Asking:
    """Asks for a route of one project in any caller's name."""

    def __init__(self, http: httpx.AsyncClient, project: Project) -> None:
        self._http = http
        self._project = project

    async def ask(
        self,
        route: Route,
        headers: dict[str, str],
        *,
        project_id: str | None = None,
        query: str = "",
    ) -> tuple[int, str, bytes]:
        """Return the status, the error's code and the body (of a stream: nothing)."""
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
        """Ask by a signed request."""
        target, content = self._filled(route, project_id)
        headers = signed_headers(route.method, target, user_id, content, scope=scope)
        return await self.ask(route, headers, project_id=project_id)

    def _filled(self, route: Route, project_id: str | None) -> tuple[str, bytes]:
        project_id = project_id or self._project.id
        target = route.path.replace("{id}", project_id)
        return target, route.body.replace("{id}", project_id).encode()


@pytest.fixture
async def asking(services: Services, project: Project) -> AsyncIterator[Asking]:
    """A project with the collaborator `collab`, and who asks for it."""
    await project.api.add_member(project.id, "collab")
    async with httpx.AsyncClient(base_url=services.b.url, trust_env=False) as http:
        yield Asking(http, project)


def _bearer(user_id: str, **more: object) -> dict[str, str]:
    return {"Authorization": f"Bearer {token(user_id, **more)}"}  # type: ignore[arg-type]


async def test_the_table_has_every_route(services: Services) -> None:
    """§4: a route that is added without a row here was asked about by nobody."""
    async with httpx.AsyncClient(base_url=services.a.url, trust_env=False) as http:
        paths = (await http.get("/schema/openapi.json")).json()["paths"]
    documented = {
        (method, path) for path, item in paths.items() for method in item if path.startswith("/v1/")
    }
    assert documented == {route.documented for route in ROUTES}


@each_route
async def test_who_has_the_scopes_is_let_in(asking: Asking, route: Route) -> None:
    """§3: a member with just what the route needs, by token and by signature."""
    scope = " ".join(sorted(route.scopes))
    by_token = await asking.ask(route, _bearer("owner", scope=scope))
    signed = await asking.signed(route, "owner", scope=scope)
    for status, code, _ in (by_token, signed):
        # No build has this id.
        assert status < 400 or (status == 404 and _NO_BUILD in route.path), code


@each_route
async def test_nobody_is_let_in_without_a_name(asking: Asking, route: Route) -> None:
    """§3: no, bad, expired and misplaced credentials are 401, never an anonymous fallback."""
    target = route.path.replace("{id}", "x")
    half = signed_headers(route.method, target, "owner")
    del half["X-Seqstream-Timestamp"]
    for headers in (
        {},
        _bearer("owner", scope="read write worker", ttl_s=-5),
        _bearer("owner", scope="read write worker", secret="x" * 40),
        _bearer("owner", scope="read write admin"),
        signed_headers(route.method, "/v1/another", "owner"),
        half,
        {"Cookie": "seqstream_token=x"},
    ):
        assert (await asking.ask(route, headers))[:2] == (401, "UNAUTHENTICATED"), headers
    if not route.path.endswith("/stream"):
        query = f"?token={token('owner', scope='read write worker')}"
        assert (await asking.ask(route, {}, query=query))[:2] == (401, "UNAUTHENTICATED")


@each_route_of_a_project
async def test_a_stranger_is_told_nothing(asking: Asking, route: Route) -> None:
    """§3: not a member, and no such project: the same 403, with whatever scopes."""
    for scope in ("read", "write", "worker", "read write worker"):
        stranger = await asking.signed(route, "stranger", scope=scope)
        nothing = await asking.signed(route, "stranger", scope=scope, project_id="acc-none")
        assert stranger == nothing
        assert stranger[:2] == (403, "UNAUTHORIZED_PROJECT_ACCESS")


@each_route
async def test_a_token_of_another_project_is_a_strangers(asking: Asking, route: Route) -> None:
    """§3: a token with `projects` gets the 403 of a stranger elsewhere, its owner's too."""
    for projects in ([], ["acc-other"]):
        headers = _bearer("owner", scope="read write worker", projects=projects)
        refused = await asking.ask(route, headers)
        assert refused[:2] == (403, "UNAUTHORIZED_PROJECT_ACCESS")


@each_route
async def test_a_member_needs_each_scope(asking: Asking, route: Route) -> None:
    """§3: a missing scope is 403 `FORBIDDEN`, by token and by signature."""
    for missing in route.scopes:
        scope = " ".join(sorted(_ALL - {missing}))
        by_token = await asking.ask(route, _bearer("owner", scope=scope))
        signed = await asking.signed(route, "owner", scope=scope)
        assert by_token[:2] == signed[:2] == (403, "FORBIDDEN")


@each_route_of_a_project
async def test_a_collaborator_may_all_but_the_owners(asking: Asking, route: Route) -> None:
    """§4: members are the owner's matter."""
    status, code, _ = await asking.signed(route, "collab", scope="read write worker")
    if route.owner_only:
        assert (status, code) == (403, "UNAUTHORIZED_PROJECT_ACCESS")
    else:
        assert status not in (401, 403)


@each_route
async def test_a_write_by_cookie_alone_is_refused(asking: Asking, route: Route) -> None:
    """§3: what writes needs an `Origin`; what reads does not."""
    cookie = {"Cookie": f"__Host-seqstream={token('owner', scope='read write worker')}"}
    for origin in ({}, {"Origin": "https://evil.example"}):
        status, code, _ = await asking.ask(route, {**cookie, **origin})
        if route.method == "GET":
            assert status in (200, 404)
        else:
            assert (status, code) == (403, "FORBIDDEN")
