"""The id of each request (docs/protocol.md §4), from a real Litestar application."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from litestar import Litestar, Request, get
from prometheus_client import CollectorRegistry

from service.http.api_errors import project_access_denied
from service.http.error_answers import exception_handlers, request_id, with_request_id
from service.telemetry.metrics import Metrics


@get("/id")
async def own_id(request: Request[Any, Any, Any]) -> str:
    """Return the request's id as a route sees it."""
    return request_id(request.scope)


@get("/denied")
async def denied() -> str:
    """Raise an error of the API."""
    raise project_access_denied()


@get("/bug")
async def bug() -> str:
    """Raise an unexpected exception."""
    raise RuntimeError


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    app = with_request_id(
        Litestar(
            [own_id, denied, bug],
            exception_handlers=exception_handlers(Metrics(CollectorRegistry())),
            logging_config=None,
            openapi_config=None,
        )
    )
    transport = httpx.ASGITransport(app=app)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        yield client


@pytest.mark.parametrize("path", ["/id", "/denied", "/bug", "/nowhere"])
@pytest.mark.parametrize("sent", ["a", "A-z_0.9", "x" * 128])
async def test_id_of_the_request_is_kept(client: httpx.AsyncClient, path: str, sent: str) -> None:
    """§4: every response has X-Request-Id, the client's own if it is usable."""
    answer = await client.get(path, headers={"x-request-id": sent})
    assert answer.headers.get_list("x-request-id") == [sent]
    assert answer.text == sent or answer.json()["requestId"] == sent


@pytest.mark.parametrize("sent", ["", "x" * 129, "a b", "é", "a\tb", 'a"', "a:b"])
async def test_unusable_id_is_replaced(client: httpx.AsyncClient, sent: str) -> None:
    """§4: an id that could break a log line or a header is not repeated."""
    answer = await client.get("/id", headers=[(b"x-request-id", sent.encode())])
    assert answer.headers["x-request-id"] == answer.text
    assert len(answer.text) == 32


async def test_generated_ids_differ(client: httpx.AsyncClient) -> None:
    """§4: a request without an id gets one, the same everywhere in its response."""
    first, second = await client.get("/id"), await client.get("/id")
    assert first.text != second.text
    assert first.text == first.headers["x-request-id"]


async def test_doubled_id_is_replaced(client: httpx.AsyncClient) -> None:
    """If there are two, neither is used."""
    answer = await client.get("/id", headers=[("x-request-id", "a"), ("x-request-id", "b")])
    assert answer.text not in ("a", "b")
