"""docs/protocol.md §4: security headers of pages, API responses and errors."""

from __future__ import annotations

import re

import httpx
import pytest

from tests.acceptance.conftest import Project, Services
from tests.conftest import StartService
from tests.support.raw_stream import RawResponse, raw_request
from tests.support.signing import token


def _check(answer: RawResponse) -> None:
    assert answer.header("x-content-type-options") == "nosniff"
    assert answer.header("referrer-policy") == "no-referrer"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/health", 200),
        ("GET", "/metrics", 200),
        ("GET", "/schema/openapi.json", 200),
        ("GET", "/schema", 200),
        ("GET", "/schema/none", 404),
        ("GET", "/chat", 200),
        ("GET", "/chat/chat.js", 200),
        ("GET", "/client/seqstream.d.ts", 200),
        ("GET", "/demo", 302),
        ("GET", "/console", 200),
        ("GET", "/console/none", 404),
        ("GET", "/none", 404),
        ("POST", "/health", 405),
        ("OPTIONS", "/health", 204),
        ("GET", "/v1/projects/x", 401),
        ("POST", "/v1/projects/x/chat/messages", 401),
        ("GET", "/v1/projects/x/chat/stream", 401),
        ("POST", "/v1/projects/x/chat/stream", 405),
    ],
)
async def test_every_response_has_the_security_headers(
    services: Services, method: str, path: str, status: int
) -> None:
    """§4: `nosniff` and `no-referrer`, each once, on pages, data and errors."""
    async with raw_request(services.a.port, path, method=method) as answer:
        assert answer.status == status
        _check(answer)


async def test_an_open_stream_has_the_security_headers(
    services: Services, project: Project
) -> None:
    """§4: also on the response that is an event stream."""
    async with raw_request(services.a.port, project.stream()) as stream:
        assert stream.status == 200
        _check(stream)


async def test_a_refused_stream_has_the_security_headers(
    services: Services, project: Project
) -> None:
    """§4: also on the 403 of a stream request."""
    target = f"/v1/projects/{project.id}/chat/stream?token={token('stranger')}"
    async with raw_request(services.a.port, target) as stream:
        assert stream.status == 403
        _check(stream)


@pytest.mark.parametrize("path", ["/chat", "/schema", "/console"])
async def test_a_page_loads_nothing_from_other_origins(services: Services, path: str) -> None:
    """§4: the pages' policy allows no other origin, no eval, and no arbitrary inline script."""
    async with httpx.AsyncClient(base_url=services.a.url, trust_env=False) as http:
        answer = await http.get(path)
    assert answer.headers["content-type"].startswith("text/html")
    policy = answer.headers["content-security-policy"]
    directives = dict(each.strip().partition(" ")[::2] for each in policy.split(";"))
    assert directives["default-src"] == "'none'"
    assert directives["frame-ancestors"] == "'none'"
    assert directives["base-uri"] == directives["form-action"] == "'none'"
    for unsafe in ("unsafe-eval", "*", "http:", "https:", "//"):
        assert unsafe not in policy
    assert "unsafe-inline" not in directives["script-src"]
    assert "//" not in answer.text.replace("http://www.w3.org/", "").replace("// ", "")


async def test_the_api_pages_files_are_immutable(services: Services) -> None:
    """§4: the service itself serves the files of `/schema`, with their version in the address."""
    async with httpx.AsyncClient(base_url=services.a.url, trust_env=False) as http:
        page = (await http.get("/schema")).text
        addresses = re.findall(r'(?:src|href)="(/[^"]+)"', page)
        assert [address.rpartition("/")[2] for address in addresses] == [
            "swagger-ui.css", "swagger-ui-bundle.js",
        ]  # fmt: skip
        for address, kind in zip(addresses, ("text/css", "text/javascript"), strict=True):
            answer = await http.get(address)
            assert answer.status_code == 200
            assert answer.headers["content-type"].split(";")[0] == kind
            assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
        folder = addresses[0].rpartition("/")[0]
        for name in ("index.html", "..%2F..%2F__init__.py", "swagger-ui.js"):
            assert (await http.get(f"{folder}/{name}")).status_code == 404


async def test_without_pages_only_the_openapi_document_is_served(
    start_service: StartService,
) -> None:
    """`SEQSTREAM_DOCS_PAGE=false`: no page loads scripts, not even from a CDN."""
    process = await start_service({"SEQSTREAM_DOCS_PAGE": "false"})
    async with httpx.AsyncClient(base_url=process.url, trust_env=False) as http:
        for path in ("", "/", "/swagger", "/redoc", "/elements", "/rapidoc", "/openapi.yaml"):
            answer = await http.get(f"/schema{path}", follow_redirects=True)
            assert "<script" not in answer.text, path
        for path in ("/chat", "/chat/chat.js", "/demo"):
            assert (await http.get(path)).status_code == 404, path
        assert (await http.get("/client/seqstream.d.ts")).status_code == 200
        assert (await http.get("/schema/openapi.json")).json()["openapi"].startswith("3.")
