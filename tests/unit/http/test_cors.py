"""Pages of other origins: the stream and the routes allow them the same."""

from __future__ import annotations

from typing import Any, cast

from litestar import Litestar, post
from litestar.config.cors import CORSConfig
from litestar.types import HTTPScope, Message, Receive, Scope

from service.http.cors import StreamCors, route_config
from service.routes.front import Front

ORIGIN = "https://app.example"
STREAM = "/v1/projects/p/chat/stream"
ROUTE = "/route"


@post(ROUTE)
async def _route() -> None:
    """A route of the framework."""


def _app(*origins: str) -> Front:
    app = Litestar([_route], cors_config=route_config(origins), openapi_config=None)
    return Front(app, cast("Any", None), cast("Any", None), StreamCors(origins))


async def _preflight(app: Front, path: str, origin: str) -> tuple[int, dict[str, str]]:
    headers = [
        (b"origin", origin.encode()),
        (b"access-control-request-method", b"GET" if path == STREAM else b"POST"),
        (b"access-control-request-headers", b"authorization"),
    ]
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    scope: dict[str, Any] = {
        "type": "http", "method": "OPTIONS", "path": path, "raw_path": path.encode(),
        "query_string": b"", "headers": headers, "scheme": "http", "root_path": "",
        "http_version": "1.1", "client": None, "server": ("127.0.0.1", 80), "state": {},
    }  # fmt: skip
    await app(cast("Scope", scope), cast("Receive", None), send)
    start = cast("Any", sent[0])
    return start["status"], {k.decode().lower(): v.decode() for k, v in start["headers"]}


def _listed(value: str) -> set[str]:
    return {each.strip().lower() for each in value.split(",")}


async def test_the_preflights_of_the_stream_and_of_a_route_agree() -> None:
    """Same origin, credentials and age; the stream takes what it needs of methods and headers."""
    app = _app(ORIGIN)
    status, stream = await _preflight(app, STREAM, ORIGIN)
    route_status, route = await _preflight(app, ROUTE, ORIGIN)
    assert (status, route_status) == (204, 204)
    for name in ("allow-origin", "allow-credentials", "max-age"):
        assert stream[f"access-control-{name}"] == route[f"access-control-{name}"]
    assert stream["vary"] == route["vary"] == "Origin"
    for name in ("allow-methods", "allow-headers"):
        header = f"access-control-{name}"
        assert _listed(stream[header]) <= _listed(route[header])
    needed = {"authorization", "last-event-id", "x-request-id"}
    assert _listed(stream["access-control-allow-headers"]) == needed


async def test_the_stream_and_the_routes_expose_the_same_headers() -> None:
    """A page may read the same headers of either answer."""
    scope = cast("HTTPScope", {"headers": [(b"origin", ORIGIN.encode())]})
    stream = dict(StreamCors([ORIGIN]).response_headers(scope))
    config = route_config([ORIGIN])
    assert isinstance(config, CORSConfig)
    route = config.simple_headers
    assert _listed(stream[b"access-control-expose-headers"].decode()) == _listed(
        route["Access-Control-Expose-Headers"]
    )
    assert (
        stream[b"access-control-allow-credentials"].decode()
        == route["Access-Control-Allow-Credentials"]
    )


def test_another_origin_gets_no_headers() -> None:
    """Neither from the stream nor from a route."""
    scope = cast("HTTPScope", {"headers": [(b"origin", b"https://evil.example")]})
    assert StreamCors([ORIGIN]).response_headers(scope) == []
    config = route_config([ORIGIN])
    assert config is not None
    assert not config.is_origin_allowed("https://evil.example")


def test_without_the_setting_there_is_no_cors() -> None:
    """No origin is configured, and none is answered."""
    assert route_config([]) is None
    scope = cast("HTTPScope", {"headers": [(b"origin", ORIGIN.encode())]})
    assert StreamCors([]).response_headers(scope) == []
