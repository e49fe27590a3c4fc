"""The HTML pages: the chat, the console, and Swagger UI for the API.

A page loads nothing from another origin, and works without a network. Its policy names what it may
load. The chat and the console have nothing inline; the API page's inline script and style are
named by their hashes.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

from litestar import Request, Response, Router, get
from litestar.datastructures import ResponseHeader
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin, OpenAPIRenderPlugin
from litestar.params import FromPath
from litestar.response import Redirect
from swagger_ui_bundle import swagger_ui_path

from service import web
from service.http.api_errors import not_found
from service.routes.static_files import StaticFolder

# No Trusted Types policy exists, so no code of the page can parse a string as HTML.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; require-trusted-types-for 'script'; trusted-types 'none'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# A page's files belong together, and their URLs have no version: a browser asks each time.
_HEADERS = {"Cache-Control": "no-cache", "Content-Security-Policy": _POLICY}
_CHAT = StaticFolder(files(web).joinpath("chat"), _HEADERS)
_CONSOLE = StaticFolder(files(web).joinpath("console"), _HEADERS)
_SWAGGER_FOLDER: Path = swagger_ui_path
# Its name, and so the URLs of its files, contain the version: they may be cached without limit.
_SWAGGER = _SWAGGER_FOLDER.name
_API = files(web).joinpath("schema.html").read_text().replace("{{swagger}}", _SWAGGER).encode()
_SWAGGER_FILES = {"swagger-ui-bundle.js": "text/javascript", "swagger-ui.css": "text/css"}


def _inline_policy(page: bytes) -> str:
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


@get("/chat", include_in_schema=False, sync_to_thread=False)
def chat_page(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Return the chat page. A token in the URL's fragment is not sent: the page reads it."""
    return _CHAT.response(request, "index.html")


@get("/chat/{name:str}", include_in_schema=False, sync_to_thread=False)
def chat_file(request: Request[Any, Any, Any], name: FromPath[str]) -> Response[bytes]:
    """Return a script or a style of the chat page."""
    return _CHAT.response(request, name)


@get("/console", include_in_schema=False, sync_to_thread=False)
def console_page(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Return the console's page. It holds nothing: it asks for a token and sends it as a header."""
    return _CONSOLE.response(request, "index.html")


@get("/console/{name:str}", include_in_schema=False, sync_to_thread=False)
def console_file(request: Request[Any, Any, Any], name: FromPath[str]) -> Response[bytes]:
    """Return a script or a style of the console's page."""
    return _CONSOLE.response(request, name)


@get("/demo", include_in_schema=False, sync_to_thread=False)
def demo() -> Redirect:
    """Lead links from before to the chat page. Browsers keep the fragment, with the token."""
    return Redirect("/chat")


def openapi_config(*, title: str, version: str, with_page: bool) -> OpenAPIConfig:
    """Return the configuration of `/schema`: the OpenAPI document, and the page that shows it."""
    if not with_page:
        # Named: without any plugin Litestar would show pages that load scripts from a CDN.
        return OpenAPIConfig(title, version, path="/schema", render_plugins=[JsonRenderPlugin()])
    router = Router(
        "/schema",
        route_handlers=[_swagger_file],
        response_headers=[
            ResponseHeader(name="Content-Security-Policy", value=_inline_policy(_API))
        ],
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
