"""What pages of other origins may do: the only place that says it.

Litestar answers for its routes with `route_config`. The stream is served before Litestar's router
(`routes/front.py`), so its headers and its preflight are made here from the same constants. Which
origins may write with a cookie is in `access/origin.py`.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from litestar.config.cors import CORSConfig
from litestar.types import HTTPScope, Method

Headers = list[tuple[bytes, bytes]]

METHODS: Final[tuple[Method, ...]] = ("GET", "POST", "PUT", "DELETE", "OPTIONS")
HEADERS: Final = ("Authorization", "Last-Event-ID", "X-Request-Id")
"""The request headers that a page may set on any path. Routes take `Content-Type` too."""
EXPOSED_HEADERS: Final = ("X-Request-Id", "Retry-After", "ETag")
MAX_AGE_S: Final = 600

_PREFLIGHT: Final[Headers] = [
    (b"access-control-allow-methods", b"GET"),
    (b"access-control-allow-headers", ", ".join(HEADERS).encode()),
    (b"access-control-max-age", b"%d" % MAX_AGE_S),
    (b"content-length", b"0"),
]


def route_config(origins: Collection[str]) -> CORSConfig | None:
    """Return Litestar's CORS settings; None when no other origin is allowed."""
    if not origins:
        return None
    return CORSConfig(
        allow_origins=list(origins),
        allow_methods=list(METHODS),
        allow_headers=[*HEADERS, "Content-Type"],
        expose_headers=list(EXPOSED_HEADERS),
        allow_credentials=True,
        max_age=MAX_AGE_S,
    )


class StreamCors:
    """Makes the CORS headers of the stream's path, for the origins that are allowed."""

    def __init__(self, origins: Collection[str]) -> None:
        self._origins = frozenset(origin.encode() for origin in origins)

    def response_headers(self, scope: HTTPScope) -> Headers:
        """Return the headers of every answer to this request; none for other origins."""
        for name, value in scope["headers"]:
            if name == b"origin" and value in self._origins:
                return [
                    (b"access-control-allow-origin", value),
                    (b"access-control-allow-credentials", b"true"),
                    (b"access-control-expose-headers", ", ".join(EXPOSED_HEADERS).encode()),
                    (b"vary", b"Origin"),
                ]
        return []

    @staticmethod
    def preflight_headers(response_headers: Headers) -> Headers:
        """Return the headers of the answer to a preflight from an allowed origin."""
        return [*response_headers, *_PREFLIGHT]
