"""The HTML pages: the demo, and Swagger UI for the API. Their files come from packages.

A page loads nothing from another origin, and works without a network. Its policy names what it may
load; the inline script and style are named by their hashes.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

from litestar import MediaType, Request, Response, Router, get
from litestar.datastructures import ResponseHeader
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin, OpenAPIRenderPlugin
from litestar.params import FromPath
from swagger_ui_bundle import swagger_ui_path

from service import web
from service.http.api_errors import not_found

# The demo's token is in the URL's fragment, which browsers do not send.
_DEMO = files(web).joinpath("demo.html").read_bytes()
_SWAGGER_FOLDER: Path = swagger_ui_path
# Its name, and so the URLs of its files, contain the version: they may be cached without limit.
_SWAGGER = _SWAGGER_FOLDER.name
_API = files(web).joinpath("schema.html").read_text().replace("{{swagger}}", _SWAGGER).encode()
_SWAGGER_FILES = {"swagger-ui-bundle.js": "text/javascript", "swagger-ui.css": "text/css"}


def _policy(page: bytes) -> str:
    """The Content-Security-Policy of a page."""
    scripts, styles = (
        " ".join(
            f"'sha256-{base64.b64encode(hashlib.sha256(inline).digest()).decode()}'"
            for inline in re.findall(rb"<%b>(.*?)</%b>" % (tag, tag), page, re.DOTALL)
        )
        for tag in (b"script", b"style")
    )
    return (
        f"default-src 'none'; script-src 'self' {scripts}; style-src 'self' {styles}; "
        "connect-src 'self'; img-src 'self' data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


_DEMO_HEADERS = {"Content-Security-Policy": _policy(_DEMO)}


@get("/demo", include_in_schema=False)
async def demo() -> Response[bytes]:
    """Return the demo page."""
    return Response(_DEMO, media_type=MediaType.HTML, headers=_DEMO_HEADERS)


def openapi_config(*, title: str, version: str, with_page: bool) -> OpenAPIConfig:
    """Return the configuration of `/schema`: the OpenAPI document, and the page that shows it."""
    if not with_page:
        # Named: without any plugin Litestar would show pages that load scripts from a CDN.
        return OpenAPIConfig(title, version, path="/schema", render_plugins=[JsonRenderPlugin()])
    router = Router(
        "/schema",
        route_handlers=[_swagger_file],
        response_headers=[ResponseHeader(name="Content-Security-Policy", value=_policy(_API))],
        include_in_schema=False,
    )
    return OpenAPIConfig(title, version, openapi_router=router, render_plugins=[_ApiPage()])


class _ApiPage(OpenAPIRenderPlugin):
    """The page at `/schema`. The browser fetches the document, so the page is always the same."""

    def __init__(self) -> None:
        super().__init__(path="/")

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        return _API


@get(f"/{_SWAGGER}/{{name:str}}", sync_to_thread=False)
def _swagger_file(name: FromPath[str]) -> Response[bytes]:
    media_type = _SWAGGER_FILES.get(name)
    if media_type is None:
        raise not_found()
    return Response(
        _read(name),
        media_type=media_type,
        headers={"Cache-Control": "public, max-age=31536000, immutable"},
    )


@functools.cache  # one of the two names above; 1.7 MB, only where the page is looked at
def _read(name: str) -> bytes:
    return (_SWAGGER_FOLDER / name).read_bytes()
