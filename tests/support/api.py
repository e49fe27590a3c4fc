"""A small HTTP client of one service for one user: signed requests, typed answers.

For setting tests up and reading the log back. Writers under load are in `writer.py`.
"""

from __future__ import annotations

from types import TracebackType
from typing import Self
from urllib.parse import urlencode

import httpx
import msgspec

from tests.support.history import LogRow, log_row
from tests.support.signing import signed_headers

_PAGE = 500


class ProjectAnswer(msgspec.Struct, frozen=True, rename="camel"):
    """A project as the API returns it."""

    id: str
    name: str
    owner_id: str
    head_seq: int


class AppendAnswer(msgspec.Struct, frozen=True, rename="camel"):
    """The answer to one appended message."""

    seq: int
    message_id: str
    duplicate: bool
    project_id: str
    client_msg_id: str | None = msgspec.field(name="client_msg_id", default=None)


class HistoryPage(msgspec.Struct, frozen=True, rename="camel"):
    """A page of the history; its messages are kept as raw JSON."""

    messages: list[msgspec.Raw]
    head_seq: int
    has_more: bool
    next_after_seq: int | None = None


class Api:
    """One user's signed requests to one base URL."""

    def __init__(self, base_url: str, user_id: str, *, timeout_s: float = 10.0) -> None:
        self.user_id = user_id
        self._client = httpx.AsyncClient(base_url=base_url, timeout=timeout_s, trust_env=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._client.aclose()

    async def request(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        query: dict[str, object] | None = None,
        headers: dict[str, str] | None = None,
        scope: str | None = None,
    ) -> httpx.Response:
        """Send one signed request and return the response, of any status; workers need `scope`."""
        content = b"" if body is None else msgspec.json.encode(body)
        target = path if not query else f"{path}?{urlencode(query)}"
        sent = signed_headers(method, target, self.user_id, content, scope=scope)
        if body is not None:
            sent["Content-Type"] = "application/json"
        return await self._client.request(
            method, target, content=content or None, headers=sent | (headers or {})
        )

    async def create_project(self, project_id: str) -> ProjectAnswer:
        """Create a project that the user owns."""
        response = await self.request(
            "POST", "/v1/projects", {"id": project_id, "name": f"Project {project_id}"}
        )
        return msgspec.json.decode(response.raise_for_status().content, type=ProjectAnswer)

    async def add_member(self, project_id: str, user_id: str) -> None:
        """Add a member to a project that the user owns."""
        response = await self.request("PUT", f"/v1/projects/{project_id}/members/{user_id}")
        response.raise_for_status()

    async def post(
        self, project_id: str, text: str, client_msg_id: str | None = None
    ) -> AppendAnswer:
        """Append one message."""
        body = {"message": text}
        if client_msg_id is not None:
            body["client_msg_id"] = client_msg_id
        response = await self.request("POST", f"/v1/projects/{project_id}/chat/messages", body)
        return msgspec.json.decode(response.raise_for_status().content, type=AppendAnswer)

    async def history_page(self, project_id: str, **query: object) -> HistoryPage:
        """Read one page of the history; `query` as in docs/protocol.md §4."""
        response = await self.request(
            "GET", f"/v1/projects/{project_id}/chat/messages", query=dict(query)
        )
        return msgspec.json.decode(response.raise_for_status().content, type=HistoryPage)

    async def log(self, project_id: str) -> list[LogRow]:
        """Read the whole log, oldest first, in the form that events have."""
        rows: list[LogRow] = []
        while True:
            after = rows[-1].seq if rows else 0
            page = await self.history_page(project_id, after_seq=after, limit=_PAGE, order="asc")
            rows += [log_row(bytes(raw)) for raw in page.messages]
            if not page.has_more or not page.messages:
                return rows
