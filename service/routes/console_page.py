"""The console's page at `/console`: plain files, read once. What it shows is in `console.py`.

The files need no token: they hold nothing. The page asks for one and sends it as a header.
"""

from __future__ import annotations

import hashlib
from importlib.resources import files
from typing import Final, NamedTuple

from litestar import Request, Response, get
from litestar.datastructures import State
from litestar.params import FromPath

from service import web
from service.http.api_errors import not_found

# Nothing inline, nothing from elsewhere; and no code of the page can parse a string as HTML.
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; require-trusted-types-for 'script'; trusted-types 'none'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# The URLs have no version: a browser asks each time whether the file is still the same.
_HEADERS: Final = {"Content-Security-Policy": _POLICY, "Cache-Control": "no-cache"}
_TYPES: Final = {"html": "text/html", "js": "text/javascript", "css": "text/css"}
_INDEX: Final = "index.html"


class _File(NamedTuple):
    body: bytes
    media_type: str
    etag: str


def _read() -> dict[str, _File]:
    """Read the files of the page's folder; nothing else is ever served."""
    found = {}
    for each in files(web).joinpath("console").iterdir():
        media_type = _TYPES.get(each.name.rpartition(".")[2])
        if media_type is not None:
            body = each.read_bytes()
            etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
            found[each.name] = _File(body, media_type, etag)
    return found


_FILES: Final = _read()


@get("/console", include_in_schema=False, sync_to_thread=False)
def console_page(request: Request[object, object, State]) -> Response[bytes]:
    """Return the page."""
    return _answer(request, _INDEX)


@get("/console/{name:str}", include_in_schema=False, sync_to_thread=False)
def console_file(request: Request[object, object, State], name: FromPath[str]) -> Response[bytes]:
    """Return a script or a style of the page."""
    return _answer(request, name)


def _answer(request: Request[object, object, State], name: str) -> Response[bytes]:
    file = _FILES.get(name)
    if file is None:
        raise not_found()
    headers = {**_HEADERS, "ETag": file.etag}
    if file.etag in request.headers.get("if-none-match", ""):
        return Response(b"", status_code=304, headers=headers, media_type=file.media_type)
    return Response(file.body, headers=headers, media_type=file.media_type)
