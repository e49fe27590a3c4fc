"""The demo page. It gets its token from the address's fragment, which no server sees."""

from __future__ import annotations

from importlib.resources import files

from litestar import MediaType, Response, get

from service import web

_PAGE = files(web).joinpath("demo.html").read_bytes()
_POLICY = "default-src 'self'; script-src 'unsafe-inline'; style-src 'unsafe-inline'"


@get("/demo", include_in_schema=False)
async def demo() -> Response[bytes]:
    """Return the demo page."""
    return Response(
        _PAGE,
        media_type=MediaType.HTML,
        headers={"Content-Security-Policy": _POLICY, "Referrer-Policy": "no-referrer"},
    )
