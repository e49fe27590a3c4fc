"""docs/protocol.md §4: projects and their members, over HTTP."""

from __future__ import annotations

import asyncpg

from tests.acceptance.conftest import Project, Services
from tests.conftest import StartService
from tests.support.api import Api


async def test_creating_with_a_taken_id_is_refused_like_any_foreign_project(
    services: Services, project: Project
) -> None:
    """§3, §4: the response equals byte for byte the 403 of a foreign or an unknown project."""
    async with Api(services.b.url, "stranger") as stranger:
        same = {"X-Request-Id": "same"}
        created = await stranger.request(
            "POST", "/v1/projects", {"id": project.id, "name": "mine"}, headers=same
        )
        read = await stranger.request("GET", f"/v1/projects/{project.id}", headers=same)
        absent = await stranger.request("GET", "/v1/projects/acc-none", headers=same)
    assert (created.status_code, created.content) == (403, read.content) == (403, absent.content)
    again = {"id": project.id, "name": "again"}
    assert (await project.api.request("POST", "/v1/projects", again)).status_code == 200


async def test_new_projects_are_rate_limited_per_user(start_service: StartService) -> None:
    """§6: new projects have the same limit as posts, but a separate bucket."""
    process = await start_service({"SEQSTREAM_POSTS_PER_SECOND": "1"})
    async with Api(process.url, "owner") as owner, Api(process.url, "other") as other:
        answers = [await owner.request("POST", "/v1/projects", {"name": "x"}) for _ in range(8)]
        statuses = [answer.status_code for answer in answers]
        assert statuses[:4] == [201] * 4
        assert 429 in statuses
        # Neither another user's projects nor this user's posts are limited by them.
        assert (await other.request("POST", "/v1/projects", {"name": "x"})).status_code == 201
        path = f"/v1/projects/{answers[0].json()['id']}/chat/messages"
        assert (await owner.request("POST", path, {"message": "x"})).status_code == 201


async def test_members_are_listed_in_pages_of_1000(services: Services, project: Project) -> None:
    """§4: in order of user id; `membersNext` is present only if there is another page."""
    users = sorted(f"user:{number}" for number in range(2000))
    await _add(services, project, users)
    first = await _page(project)
    assert (first["members"], first["membersNext"]) == (users[:1000], users[999])
    second = await _page(project, members_after=users[999])
    assert second["members"] == users[1000:]
    assert "membersNext" not in second
    await _add(services, project, ["zoë"])
    second = await _page(project, members_after=users[999])
    assert (second["members"], second["membersNext"]) == (users[1000:], users[1999])
    last = await _page(project, members_after=users[1999])
    assert last["members"] == ["zoë"]
    assert "membersNext" not in last


async def test_members_after_must_be_a_user_id(project: Project) -> None:
    """§4: else 400, and `details` name the parameter."""
    answer = await project.api.request(
        "GET", f"/v1/projects/{project.id}", query={"members_after": "a b"}
    )
    assert answer.status_code == 400
    assert answer.json()["details"][0]["field"] == "members_after"


async def _page(project: Project, **query: object) -> dict[str, object]:
    answer = await project.api.request("GET", f"/v1/projects/{project.id}", query=query)
    assert answer.status_code == 200, answer.text
    page: dict[str, object] = answer.json()
    return page


async def _add(services: Services, project: Project, users: list[str]) -> None:
    """Insert members directly into the table: one by one over HTTP would take long."""
    connection = await asyncpg.connect(services.database_url)
    try:
        await connection.executemany(
            "INSERT INTO project_members (project_id, user_id) VALUES ($1, $2)",
            [(project.id, user) for user in users],
        )
    finally:
        await connection.close()
