"""docs/protocol.md §3: what the scope `admin` opens, and what it does not."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
from click.testing import CliRunner

from service.operate.commands import main
from tests.acceptance.conftest import Project, Services
from tests.support.processes import run_cli, service_environment
from tests.support.signing import signed_headers, token


@pytest.fixture
async def http(services: Services) -> AsyncIterator[httpx.AsyncClient]:
    """A client of process `b` without credentials."""
    async with httpx.AsyncClient(base_url=services.b.url, trust_env=False) as client:
        yield client


def _admin(scope: str = "read admin", **more: object) -> dict[str, str]:
    return {"Authorization": f"Bearer {token('operator', scope=scope, **more)}"}  # type: ignore[arg-type]


def _outcome(answer: httpx.Response) -> tuple[int, str | None]:
    return answer.status_code, None if answer.is_success else answer.json()["code"]


DENIED = (403, "UNAUTHORIZED_PROJECT_ACCESS")


async def test_an_admin_reads_a_project_without_being_a_member(
    http: httpx.AsyncClient, project: Project
) -> None:
    """§3: by token and by signature."""
    assert _outcome(await http.get(project.messages, headers=_admin())) == (200, None)
    signed = signed_headers("GET", project.messages, "operator", scope="read admin")
    assert _outcome(await http.get(project.messages, headers=signed)) == (200, None)


async def test_an_admin_without_read_reads_no_messages(
    http: httpx.AsyncClient, project: Project
) -> None:
    """§3: `admin` stands in for membership alone: who only operates sees no content."""
    refused = await http.get(project.messages, headers=_admin("admin"))
    assert _outcome(refused) == (403, "FORBIDDEN")


async def test_an_admin_does_not_write_without_membership(
    http: httpx.AsyncClient, project: Project
) -> None:
    """§3: writing and working need membership, as ever."""
    headers = _admin("read write worker admin")
    posted = await http.post(project.messages, json={"message": "x"}, headers=headers)
    typing = f"/v1/projects/{project.id}/chat/typing"
    typed = await http.post(typing, json={"typing": True}, headers=headers)
    minted = await http.post(f"/v1/projects/{project.id}/stream-tokens", json={}, headers=headers)
    assert [_outcome(each) for each in (posted, typed, minted)] == [DENIED] * 3


async def test_only_an_admin_is_told_that_a_project_does_not_exist(
    http: httpx.AsyncClient,
) -> None:
    """§3: 404 for an admin who may see all projects; the stranger's 403 for everybody else."""
    nothing = "/v1/projects/acc-none/chat/messages"
    assert _outcome(await http.get(nothing, headers=_admin())) == (404, "NOT_FOUND")
    limited = _admin(projects=["acc-other"])
    assert _outcome(await http.get(nothing, headers=limited)) == DENIED
    assert _outcome(await http.get(nothing, headers=_admin("read"))) == DENIED


async def test_a_projects_claim_limits_an_admin(http: httpx.AsyncClient, project: Project) -> None:
    """§3: a token with `projects` gets the 403 of a stranger elsewhere."""
    inside = _admin(projects=[project.id])
    assert _outcome(await http.get(project.messages, headers=inside)) == (200, None)
    for projects in ([], ["acc-other"]):
        refused = await http.get(project.messages, headers=_admin(projects=projects))
        assert _outcome(refused) == DENIED


async def test_a_printed_admin_token_is_good_for_all_projects(
    services: Services, http: httpx.AsyncClient, project: Project
) -> None:
    """§7: `token --all-projects`."""
    environment = service_environment(services.database_url, services.redis.url)
    scopes = ["--scope", "read", "--scope", "admin"]
    printed = run_cli(["token", "--all-projects", "--user", "operator", *scopes], environment)
    headers = {"Authorization": f"Bearer {printed.stdout.strip()}"}
    assert _outcome(await http.get(project.messages, headers=headers)) == (200, None)


@pytest.mark.parametrize("arguments", [[], ["p", "--all-projects"]])
def test_a_token_is_for_one_project_or_for_all(arguments: list[str]) -> None:
    """§7: no token is good for all projects because one was forgotten."""
    ended = CliRunner().invoke(main, ["token", *arguments, "--user", "operator"])
    assert ended.exit_code == 2
    assert "give either PROJECT or --all-projects" in ended.output
