"""docs/protocol.md §4 and §6: requesting, repeating, limiting, listing and cancelling builds."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.support.api import Api
from tests.support.build_environment import BuildEnvironment, ask, ends
from tests.support.processes import ServiceProcess


async def test_a_repeated_request_returns_the_same_build(home: BuildEnvironment) -> None:
    """G5: the same `client_msg_id` returns the same build, also after the build has ended."""
    await home.worker()
    first = await ask(home.api, home.project, "c1")
    again = await asyncio.gather(*(ask(home.api, home.project, "c1", status=200) for _ in range(5)))
    await home.wait_status(first.build_id, "completed")
    late = await ask(home.api, home.project, "c1", status=200)
    assert {(each.build_id, each.seq, each.status) for each in (first, *again, late)} == {
        (first.build_id, 1, "queued")
    }
    assert (
        len((await home.api.request("GET", f"/v1/projects/{home.project}/builds")).json()["builds"])
        == 1
    )


async def test_unfinished_builds_are_limited_per_project_and_per_user(
    home: BuildEnvironment, tmp_path: Path
) -> None:
    """§6: above either limit a new build is 429; a repeated request still returns its build."""
    limits = {"SEQSTREAM_MAX_BUILDS_PER_PROJECT": "2", "SEQSTREAM_MAX_BUILDS_PER_USER": "3"}
    other = f"{home.project}-other"
    # A build that another process accepted counts too.
    first = await ask(home.api, home.project, "c1")
    async with (
        ServiceProcess("limited", tmp_path, home.environment | limits) as limited,
        Api(limited.url, "alice") as api,
    ):
        await api.create_project(other)
        await ask(api, home.project, "c2")
        await _assert_refused(api, home.project, "project")
        await ask(api, other, "c1")
        await _assert_refused(api, other, "user")
        again = await ask(api, home.project, "c1", status=200)
        assert (again.build_id, again.seq) == (first.build_id, 1)
        for project, count in ((home.project, 2), (other, 1)):
            assert len(await api.log(project)) == count
            listed = (await api.request("GET", f"/v1/projects/{project}/builds")).json()
            assert len(listed["builds"]) == count
        # An ended build no longer counts.
        path = f"/v1/projects/{home.project}/builds/{first.build_id}/cancel"
        assert (await api.request("POST", path)).status_code == 200
        await ask(api, home.project, "c3")


async def _assert_refused(api: Api, project: str, whose: str) -> None:
    body = {"projectId": project, "message": "make it", "mode": "build", "client_msg_id": "more"}
    response = await api.request("POST", "/v1/chat/unified", body)
    assert (response.status_code, response.json()["code"]) == (429, "RATE_LIMITED")
    assert int(response.headers["Retry-After"]) > 0
    assert f"The {whose} has too many" in response.json()["error"]


async def test_cancelling_a_queued_build_ends_it_at_once(home: BuildEnvironment) -> None:
    """Cancel: queued → failed with the message `cancelled`; a second cancel returns the same."""
    asked = await ask(home.api, home.project)
    path = f"/v1/projects/{home.project}/builds/{asked.build_id}/cancel"
    first, again = [await home.api.request("POST", path) for _ in range(2)]
    assert (first.status_code, first.json()["status"]) == (200, "failed")
    assert first.json()["message"] == "cancelled"
    assert (again.status_code, again.json()["status"]) == (200, "failed")
    assert len(ends(await home.api.log(home.project))) == 1


async def test_missing_builds_are_404(home: BuildEnvironment) -> None:
    """§4: a build of another project and an unknown id are both 404."""
    await home.api.create_project("built-elsewhere")
    asked = await ask(home.api, home.project)
    for path in (
        f"/v1/projects/built-elsewhere/builds/{asked.build_id}",
        f"/v1/projects/{home.project}/builds/nonsense",
    ):
        assert (await home.api.request("GET", path)).status_code == 404
        assert (await home.api.request("POST", f"{path}/cancel")).status_code == 404


async def test_builds_are_listed_newest_first(home: BuildEnvironment) -> None:
    """§4: `GET …/builds`, with the filters `status` and `limit`."""
    made = [(await ask(home.api, home.project)).build_id for _ in range(3)]
    await home.api.request("POST", f"/v1/projects/{home.project}/builds/{made[0]}/cancel")

    async def listed(query: str) -> list[str]:
        response = await home.api.request("GET", f"/v1/projects/{home.project}/builds{query}")
        return [build["buildId"] for build in response.json()["builds"]]

    assert await listed("") == made[::-1]
    assert await listed("?limit=1") == [made[2]]
    assert await listed("?status=queued") == [made[2], made[1]]
    assert await listed("?status=failed") == [made[0]]
