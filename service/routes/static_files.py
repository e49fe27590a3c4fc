"""Files of the package that browsers load: read once, kept in memory, revalidated by `ETag`.

A request names a file, never a path: what the folder had at the start is all that is served. Which
URLs exist is in `page.py` and `client_module.py`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources.abc import Traversable
from typing import Any, Final

from litestar import Request, Response

from service.http.api_errors import not_found

# By the end of the name, the first that fits. Anything else in a folder is not served. The charset
# is added by Litestar.
_TYPES: Final = {
    ".d.ts": "text/plain",
    ".js": "text/javascript",
    ".css": "text/css",
    ".html": "text/html",
}


@dataclass(frozen=True, slots=True)
class StaticFile:
    """One file, as it is sent."""

    body: bytes
    media_type: str
    etag: str = field(init=False)

    def __post_init__(self) -> None:
        # By content: all processes, also of other hosts, agree on it.
        digest = hashlib.sha256(self.body).hexdigest()[:32]
        object.__setattr__(self, "etag", f'"{digest}"')


class StaticFolder:
    """The files of one folder, each under its name, with the headers that all of them get."""

    def __init__(self, folder: Traversable, headers: Mapping[str, str]) -> None:
        self._headers = dict(headers)
        self._files = {
            each.name: StaticFile(each.read_bytes(), media_type)
            for each in folder.iterdir()
            if (media_type := _media_type(each.name)) is not None and each.is_file()
        }

    @property
    def names(self) -> frozenset[str]:
        """The names that are served."""
        return frozenset(self._files)

    def response(self, request: Request[Any, Any, Any], name: str) -> Response[bytes]:
        """Return the file, or 304 if the client has it.

        Raises:
            ApiError: 404, no such file.
        """
        file = self._files.get(name)
        if file is None:
            raise not_found()
        headers = {**self._headers, "ETag": file.etag}
        if is_current(request.headers.get("if-none-match"), file.etag):
            return Response(b"", status_code=304, headers=headers, media_type=file.media_type)
        return Response(file.body, media_type=file.media_type, headers=headers)


def is_current(if_none_match: str | None, etag: str) -> bool:
    """Tell whether a client with this `If-None-Match` has the version (RFC 9110 §13.1.2)."""
    if if_none_match is None:
        return False
    known = {tag.strip().removeprefix("W/") for tag in if_none_match.split(",")}
    return etag in known or "*" in known


def _media_type(name: str) -> str | None:
    return next((kind for end, kind in _TYPES.items() if name.endswith(end)), None)
