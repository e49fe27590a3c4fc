"""The operator's console: who may ask, and what it shows of a real process (scope `admin`, §3)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.acceptance.conftest import Project, Services
from tests.support.signing import signed_headers, token
from tests.support.sse_client import SseClient
from tests.support.waiting import wait_until

_P = "/v1/console/projects"
ROUTES = ["/v1/console/overview", f"{_P}/{{id}}", f"{_P}/{{id}}/legs"]
each_route = pytest.mark.parametrize("route", ROUTES)
each_project_route = pytest.mark.parametrize("route", ROUTES[1:])


@pytest.fixture
async def http(services: Services) -> AsyncIterator[httpx.AsyncClient]:
    """A client of process `a` without credentials."""
    async with httpx.AsyncClient(base_url=services.a.url, trust_env=False) as client:
        yield client


def _bearer(scope: str = "admin", user_id: str = "operator", **more: Any) -> dict[str, str]:
    return {"Authorization": f"Bearer {token(user_id, scope=scope, **more)}"}


def _refusal(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


async def _get(http: httpx.AsyncClient, path: str, **query: Any) -> Any:
    answer = await http.get(path, params=query, headers=_bearer())
    assert answer.status_code == 200, answer.text
    return answer.json()


# Who may ask.


async def test_every_documented_console_route_is_in_the_table(http: httpx.AsyncClient) -> None:
    """A new route without a row here would have no access test; all of them only read."""
    paths = (await http.get("/schema/openapi.json")).json()["paths"]
    documented = {
        path.replace("{project_id}", "{id}"): set(item)
        for path, item in paths.items()
        if path.startswith("/v1/console/")
    }
    assert documented == {route: {"get"} for route in ROUTES}


@each_route
async def test_the_console_needs_valid_credentials(
    http: httpx.AsyncClient, project: Project, route: str
) -> None:
    """401 for missing, bad and expired ones, and for a token in the query."""
    path = route.replace("{id}", project.id)
    for headers in (
        {},
        _bearer(ttl_s=-5),
        _bearer(secret="x" * 40),
        signed_headers("GET", "/v1/another", "operator", scope="admin"),
    ):
        assert _refusal(await http.get(path, headers=headers)) == (401, "UNAUTHENTICATED")
    asked = await http.get(path, params={"token": token("operator", scope="admin")})
    assert _refusal(asked) == (401, "UNAUTHENTICATED")


@each_route
async def test_no_other_scope_opens_the_console(
    http: httpx.AsyncClient, project: Project, route: str
) -> None:
    """403 for the project's owner with all other scopes, in every kind of credential."""
    path = route.replace("{id}", project.id)
    other = "read write worker"
    for headers in (
        _bearer(other, "owner"),
        _bearer("read", "owner", projects=[project.id]),
        signed_headers("GET", path, "owner", scope=other),
        signed_headers("GET", path, "owner"),
        {"Cookie": f"seqstream_token={token('owner', scope=other)}"},
    ):
        assert _refusal(await http.get(path, headers=headers)) == (403, "FORBIDDEN")


@each_route
async def test_admin_opens_the_console_in_every_kind_of_credential(
    http: httpx.AsyncClient, project: Project, route: str
) -> None:
    """By token, cookie and signature; writing methods do not exist."""
    path = route.replace("{id}", project.id)
    for headers in (
        _bearer(),
        {"Cookie": f"seqstream_token={token('operator', scope='admin')}"},
        signed_headers("GET", path, "operator", scope="admin"),
    ):
        answer = await http.get(path, headers=headers)
        assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    posted = await http.post(path, json={}, headers=_bearer("write admin"))
    assert _refusal(posted) == (405, "METHOD_NOT_ALLOWED")


@each_project_route
async def test_an_admin_of_other_projects_is_a_stranger(
    http: httpx.AsyncClient, project: Project, route: str
) -> None:
    """A `projects` claim limits an admin: the 403 is the same for projects that do not exist."""
    for projects in ([], ["acc-other"]):
        for project_id in (project.id, "acc-none"):
            headers = _bearer(projects=projects)
            refused = await http.get(route.replace("{id}", project_id), headers=headers)
            assert _refusal(refused) == (403, "UNAUTHORIZED_PROJECT_ACCESS")


@each_project_route
async def test_a_project_that_does_not_exist_is_404(http: httpx.AsyncClient, route: str) -> None:
    """Only an admin is told; an id that cannot be one is 400."""
    unknown = await http.get(route.replace("{id}", "acc-none"), headers=_bearer())
    assert _refusal(unknown) == (404, "NOT_FOUND")
    wrong = await http.get(route.replace("{id}", "a.b"), headers=_bearer())
    assert _refusal(wrong) == (400, "VALIDATION_FAILED")


# What it shows.


@pytest.fixture
async def reader(services: Services, project: Project) -> AsyncIterator[SseClient]:
    """A live stream of the project's owner at process `a`."""
    async with SseClient("reader", [services.a.url], project.id, project.token) as client:
        await client.wait_live()
        yield client


async def test_the_overview_shows_the_process_and_who_reads_here(
    http: httpx.AsyncClient, project: Project, reader: SseClient
) -> None:
    """The project has a row with head, lag and streams; every part of a well process is well."""
    await project.fill(3)
    await reader.wait_seq(3)
    seen = await _get(http, "/v1/console/overview")
    row = next(row for row in seen["projects"] if row["projectId"] == project.id)
    assert (row["headSeq"], row["lagSeqs"], row["streams"], row["blocked"]) == (3, 0, 1, 0)
    assert (seen["health"]["status"], seen["missing"]) == ("healthy", [])
    assert {"postgres", "redis", "lanes", "heads poll", "database pool"} <= {
        part["name"] for part in seen["health"]["parts"] if part["ok"]
    }
    assert seen["process"]["workers"] == 1
    assert seen["totals"]["streams"] >= 1
    assert set(seen["work"]) == {"builds", "oldestQueuedSeconds", "answersUnderWay"}


async def test_the_rate_of_a_project_is_measured_while_somebody_asks(
    http: httpx.AsyncClient, project: Project, reader: SseClient
) -> None:
    """Messages a second over the last ten seconds and the last minute."""

    async def rate() -> float:
        seen = await _get(http, "/v1/console/overview")
        row = next(row for row in seen["projects"] if row["projectId"] == project.id)
        assert (row["perSecond10s"] > 0) == (row["perSecond60s"] > 0)
        return float(row["perSecond10s"])

    await rate()

    async def is_counted() -> bool:
        await project.api.post(project.id, "one more")
        return await rate() > 0

    await wait_until(is_counted, what="a rate")


async def test_a_limited_admin_sees_its_projects_and_no_sums_of_others(
    http: httpx.AsyncClient, project: Project, reader: SseClient
) -> None:
    """The overview lists and counts what the `projects` claim names; builds are of all projects."""
    path = "/v1/console/overview"
    mine = (await http.get(path, headers=_bearer(projects=[project.id]))).json()
    assert [row["projectId"] for row in mine["projects"]] == [project.id]
    assert (mine["totals"]["streams"], mine["work"]) == (1, None)
    others = (await http.get(path, headers=_bearer(projects=["acc-other"]))).json()
    assert (others["projects"], others["totals"]["projects"]) == ([], 0)


async def test_the_three_tiers_of_a_project_are_side_by_side(
    http: httpx.AsyncClient, project: Project, reader: SseClient
) -> None:
    """The window holds the newest 200, the log everything, the tail what came since its reader."""
    await project.fill(250)
    await reader.wait_seq(250)
    seen = await _get(http, f"{_P}/{project.id}")
    memory, redis, postgres = seen["memory"], seen["redis"], seen["postgres"]
    assert (memory["firstSeq"], memory["lastSeq"], memory["generation"]) == (1, 250, 0)
    assert (redis["lo"], redis["hi"], redis["messages"], redis["holes"]) == (51, 250, 200, [])
    assert redis["bytes"] > 10_000
    assert redis["expiresInSeconds"] > 3600
    assert (postgres["firstSeq"], postgres["headSeq"], postgres["counted"]) == (1, 250, 200)
    assert (postgres["range"], postgres["holes"]) == ({"fromSeq": 51, "toSeq": 250}, [])
    (stream,) = seen["streams"]
    assert (stream["userId"], stream["state"], stream["cursor"]) == ("owner", "live", 250)
    assert (stream["lagSeqs"], stream["backlogBytes"]) == (0, 0)
    assert seen["waiting"]["live"] == {"streams": 1, "maxLagSeqs": 0, "backlogBytes": 0}
    assert (seen["name"], seen["ownerId"], seen["streamsTotal"]) == (
        f"Project {project.id}", "owner", 1,
    )  # fmt: skip


async def test_a_project_without_readers_here_has_no_memory(
    http: httpx.AsyncClient, project: Project
) -> None:
    """Looking at it makes no tail."""
    await project.fill(1)
    seen = await _get(http, f"{_P}/{project.id}")
    assert (seen["memory"], seen["streams"], seen["postgres"]["headSeq"]) == (None, [], 1)
    overview = await _get(http, "/v1/console/overview")
    assert project.id not in [row["projectId"] for row in overview["projects"]]


async def test_unfinished_builds_are_listed_without_their_request(
    http: httpx.AsyncClient, project: Project
) -> None:
    """What the build is asked to do is content: it stays with the members."""
    body = {"projectId": project.id, "message": "a private wish", "mode": "build"}
    build_id = (await project.api.request("POST", "/v1/chat/unified", body)).json()["buildId"]
    answer = await http.get(f"{_P}/{project.id}", headers=_bearer())
    (build,) = answer.json()["builds"]
    assert (build["buildId"], build["status"], build["userId"]) == (build_id, "queued", "owner")
    assert "a private wish" not in answer.text
    cancelled = f"/v1/projects/{project.id}/builds/{build_id}/cancel"
    assert (await project.api.request("POST", cancelled)).status_code == 200
    assert (await _get(http, f"{_P}/{project.id}"))["builds"] == []


async def test_the_legs_of_a_message_are_in_the_order_of_its_way(
    http: httpx.AsyncClient, project: Project, reader: SseClient
) -> None:
    """Commit, publish, arrival, first and last write; the next question gives what came since."""
    path = f"{_P}/{project.id}/legs"
    begun = await _get(http, path)
    assert (begun["events"], begun["next"], begun["missing"]) == ([], 0, [])
    await project.api.post(project.id, "a private text")
    await reader.wait_seq(1)
    answer = await http.get(path, headers=_bearer())
    (leg,) = answer.json()["events"]
    assert (leg["n"], leg["id"], leg["event"], leg["userId"]) == (1, "1-0", "message.new", "owner")
    assert leg["connections"] == 1
    # One machine, one clock.
    assert 0 <= leg["publishedMs"] <= leg["arrivedMs"] <= leg["firstWriteMs"] <= leg["lastWriteMs"]
    assert "a private text" not in answer.text
    await project.api.post(project.id, "another")
    await reader.wait_seq(2)
    later = await _get(http, path, after=answer.json()["next"])
    assert [leg["id"] for leg in later["events"]] == ["2-0"]
    assert later["watchId"] == begun["watchId"]
