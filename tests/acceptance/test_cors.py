"""docs/protocol.md §4, `SEQSTREAM_CORS_ORIGINS`: which origins may read responses."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from tests.acceptance.conftest import NewProject, Project, Services
from tests.support.processes import ServiceProcess, service_environment
from tests.support.raw_stream import raw_request

ORIGIN = "https://app.example"


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    """A client without credentials."""
    async with httpx.AsyncClient(trust_env=False, verify=False) as client:
        yield client


@pytest.fixture(scope="module")
async def cors(
    services: Services, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[ServiceProcess]:
    """A process with one other allowed origin."""
    environment = service_environment(
        services.database_url, services.redis.url, {"SEQSTREAM_CORS_ORIGINS": ORIGIN}
    )
    async with ServiceProcess("cors", tmp_path_factory.mktemp("cors"), environment) as process:
        yield process


@pytest.mark.parametrize(("origin", "allowed"), [(ORIGIN, ORIGIN), ("https://evil.example", None)])
async def test_only_an_allowed_origin_gets_cors_headers(
    cors: ServiceProcess, new_project: NewProject, origin: str, allowed: str | None
) -> None:
    """`SEQSTREAM_CORS_ORIGINS`: the origin is named on responses, errors and streams."""
    project = await new_project(cors)
    headers = {"Origin": origin}
    page = await project.api.request("GET", project.messages, headers=headers)
    refused = await project.api.request("POST", project.messages, {}, headers=headers)
    posted = await project.api.request("POST", project.messages, {"message": "x"}, headers=headers)
    assert (page.status_code, refused.status_code, posted.status_code) == (200, 400, 201)
    for response in (page, refused, posted):
        assert response.headers.get("access-control-allow-origin") == allowed
    async with raw_request(cors.port, project.stream(), headers=headers) as stream:
        assert stream.header("access-control-allow-origin") == allowed


@pytest.mark.parametrize(("origin", "allowed"), [(ORIGIN, ORIGIN), ("https://evil.example", "*")])
async def test_any_origin_may_import_the_client(
    cors: ServiceProcess, origin: str, allowed: str
) -> None:
    """The setting names who may use credentials; the browser client is public code."""
    target = "/client/seqstream.d.ts"
    async with raw_request(cors.port, target, headers={"Origin": origin}) as answer:
        assert answer.status == 200
        assert answer.header("access-control-allow-origin") == allowed


async def test_a_cors_preflight_is_answered(cors: ServiceProcess, http: httpx.AsyncClient) -> None:
    """A browser sends a preflight request before it posts JSON to another origin."""
    response = await http.options(
        f"{cors.url}/v1/projects/p/chat/messages",
        headers={
            "Origin": ORIGIN,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "content-type, authorization",
        },
    )
    assert response.status_code in (200, 204)
    assert response.headers["access-control-allow-origin"] == ORIGIN
    assert "POST" in response.headers["access-control-allow-methods"]
    assert "content-type" in response.headers["access-control-allow-headers"].lower()


async def test_without_the_setting_no_origin_is_allowed(
    services: Services, project: Project
) -> None:
    """By default no other site may read."""
    response = await project.api.request("GET", project.messages, headers={"Origin": ORIGIN})
    assert "access-control-allow-origin" not in response.headers
