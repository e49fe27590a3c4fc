"""The addresses of the service, checked before anything is sent to them. Pure."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import httpx

from service.client.client_errors import BadRequest

_PROJECT_ID = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
_MESSAGE_ID = re.compile(r"[A-Za-z0-9_-]{1,128}\Z")


def project_path(project: str) -> str:
    """Return a project's path. Raises `BadRequest` when the id would make it another one."""
    if not _PROJECT_ID.match(project):
        raise BadRequest(400, "VALIDATION_FAILED", "projectId: must match ^[A-Za-z0-9_-]{1,64}$")
    return f"/v1/projects/{project}"


def answer_path(project: str, message_id: str) -> str:
    """Return an answer's path. Raises `BadRequest` when an id would make it another one."""
    if not _MESSAGE_ID.match(message_id):
        raise BadRequest(400, "VALIDATION_FAILED", "messageId: has other characters than an id")
    return f"{project_path(project)}/answers/{message_id}"


def base_url(url: str) -> str:
    """Return the address without a slash at its end; raise ValueError for any other."""
    parts = urlsplit(url)
    _ = parts.port  # Raises ValueError for one that is none.
    # Credentials in an address would replace the token.
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        raise ValueError("the address is http:// or https:// and a host, without a user")
    if parts.query or parts.fragment:
        raise ValueError("the address has no query")
    try:
        httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ValueError(str(error)) from None
    return url.rstrip("/")
