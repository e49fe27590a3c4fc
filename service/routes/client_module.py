"""`/client/{name}`: the browser client, an ES module that pages of any origin may import.

It is public code and the answer depends on no credentials, so any origin may read it. Served also
where the pages are turned off (`SEQSTREAM_DOCS_PAGE`): applications import it from here.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from litestar import Request, Response, get
from litestar.params import FromPath

from service import web
from service.routes.static_files import StaticFolder

_FILES = StaticFolder(
    files(web).joinpath("client"),
    {
        "Access-Control-Allow-Origin": "*",
        # Short: the URLs have no version, and the modules of one version belong together.
        "Cache-Control": "public, max-age=300, must-revalidate",
    },
)


@get("/client/{name:str}", include_in_schema=False, sync_to_thread=False)
def client_file(request: Request[Any, Any, Any], name: FromPath[str]) -> Response[bytes]:
    """Return a file of the browser client."""
    return _FILES.response(request, name)
