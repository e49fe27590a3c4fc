"""docs/protocol.md §4: the files of the browser client and of the chat page."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from tests.acceptance.conftest import Services
from tests.support.raw_stream import raw_request

_SHARED = "public, max-age=300, must-revalidate"
_FILES = [
    ("/client/seqstream.d.ts", "text/plain; charset=utf-8", _SHARED),
    ("/client/seqstream.js", "text/javascript; charset=utf-8", _SHARED),
    ("/chat", "text/html; charset=utf-8", "no-cache"),
    ("/chat/chat.js", "text/javascript; charset=utf-8", "no-cache"),
    ("/chat/chat.css", "text/css; charset=utf-8", "no-cache"),
]
_PATHS = [path for path, _, _ in _FILES]
_ORIGIN = "https://app.example"


@pytest.fixture
async def http(services: Services) -> AsyncIterator[httpx.AsyncClient]:
    """A client without credentials."""
    async with httpx.AsyncClient(base_url=services.a.url, trust_env=False) as client:
        yield client


@pytest.mark.parametrize(("path", "kind", "caching"), _FILES)
async def test_a_file_has_its_type_and_its_caching(
    http: httpx.AsyncClient, path: str, kind: str, caching: str
) -> None:
    """§4: browsers refuse a module of another type; a page's own files are always revalidated."""
    answer = await http.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == kind
    assert answer.headers["cache-control"] == caching
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.content


@pytest.mark.parametrize("path", _PATHS)
async def test_a_file_that_did_not_change_is_304(http: httpx.AsyncClient, path: str) -> None:
    """§4: by its `ETag`, which all processes agree on; with the headers of the 200."""
    first = await http.get(path)
    tag = first.headers["etag"]
    same = await http.get(path, headers={"If-None-Match": tag})
    assert (same.status_code, same.content) == (304, b"")
    for name in ("etag", "cache-control"):
        assert same.headers[name] == first.headers[name]
    other = await http.get(path, headers={"If-None-Match": '"another"'})
    assert (other.status_code, other.content) == (200, first.content)


async def test_both_processes_give_a_file_the_same_etag(services: Services) -> None:
    """§4: behind a load balancer a browser's copy stays good."""
    async with httpx.AsyncClient(trust_env=False) as client:
        tags = {
            (await client.get(f"{process.url}/client/seqstream.d.ts")).headers["etag"]
            for process in (services.a, services.b)
        }
    assert len(tags) == 1


@pytest.mark.parametrize("folder", ["/client", "/chat"])
@pytest.mark.parametrize(
    "name",
    [
        "none.js", "__init__.py", "package.json", ".", "..", "../__init__.py", "../schema.html",
        "%2e%2e/__init__.py", "..%2F__init__.py", "..%2Fschema.html", "%2Fetc%2Fpasswd",
        "..%5Cschema.html", "seqstream.js%00", "chat.js%00.html", "./chat.js", "SEQSTREAM.JS",
        "chat.js/..", "%252e%252e%252fschema.html",
    ],
)  # fmt: skip
async def test_nothing_else_is_served(services: Services, folder: str, name: str) -> None:
    """§4: only the files that lie in the folder, each under its one name."""
    async with raw_request(services.a.port, f"{folder}/{name}") as answer:
        assert answer.status == 404
        assert answer.header("access-control-allow-origin") is None


async def test_any_origin_may_import_the_client(http: httpx.AsyncClient) -> None:
    """§4: public code: any page may read it, without credentials. The chat's files are its own."""
    headers = {"Origin": _ORIGIN}
    answer = await http.get("/client/seqstream.d.ts", headers=headers)
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in answer.headers
    assert "set-cookie" not in answer.headers
    page = await http.get("/chat/chat.js", headers=headers)
    assert "access-control-allow-origin" not in page.headers


async def test_old_links_lead_to_the_chat_page(http: httpx.AsyncClient) -> None:
    """RFC 9110 §10.2.2: a redirect without a fragment keeps the one that holds the token."""
    answer = await http.get("/demo")
    assert (answer.status_code, answer.headers["location"]) == (302, "/chat")
