"""The client: sends messages to projects, follows them, and reads their history and builds.

Each method is one request of docs/protocol.md §4, or the stream of §6. How requests are made is in
`exchange.py`, how a project is followed in `following.py`.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import AsyncGenerator, Collection, Mapping
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import httpx
import msgspec

from service.client.client_backoff import ClientBackoff
from service.client.client_errors import BadRequest, Unavailable
from service.client.client_events import (
    Build,
    BuildList,
    Event,
    Order,
    Page,
    Receipt,
    decode,
    page_of,
)
from service.client.exchange import Exchange
from service.client.following import Following, FollowObserver, FollowOptions, wanted
from service.client.position import Position
from service.client.token_source import Token, TokenSource, check_token

# Heartbeats come every 2 s at most: with less, every quiet project would look like a dead network.
_LEAST_SILENCE_S = 3.0
_PROJECT_ID = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")


class Client:
    """A client of one service, with one user's token; use it as an asynchronous context.

    `token` is a text, or a callable (also a coroutine function) that returns a fresh one: it is
    called when there is none yet and when the service no longer takes the last. `timeout_s` is for
    a whole request with its retries. A stream that is silent for `silence_s` is opened again.
    `http` is an own httpx client, for certificates, proxies and the like; it is not closed here.

    Safe for any number of tasks of one event loop.
    """

    def __init__(
        self,
        url: str,
        token: Token,
        *,
        timeout_s: float = 30.0,
        silence_s: float = 45.0,
        http: httpx.AsyncClient | None = None,
    ) -> None:
        if timeout_s <= 0 or silence_s < _LEAST_SILENCE_S:
            raise ValueError(f"timeout_s is above 0, silence_s at least {_LEAST_SILENCE_S:g}")
        self._url = _base_url(url)
        tokens = TokenSource(check_token(token))
        self._is_own = http is None
        self._http = http or _http_for(self._url)
        self._exchange = Exchange(self._http, self._url, tokens)
        self._timeout_s = timeout_s
        self._silence_s = silence_s

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections. What still follows raises `ClientClosed`."""
        self._exchange.close()
        if self._is_own:
            await self._http.aclose()

    async def send(
        self,
        project: str,
        text: str,
        *,
        client_msg_id: str | None = None,
        parent_id: str | None = None,
        metadata: Mapping[str, object] | None = None,
        timeout_s: float | None = None,
    ) -> Receipt:
        """Append one message and return its receipt, once it is committed.

        Retried until the timeout under the same `client_msg_id`, which is made when none is given:
        the message is stored once, however often an answer is lost.

        Raises:
            Conflict: the client_msg_id was used before, with another content.
            Unavailable: no answer in time; it may have been stored. `client_msg_id` of the error
                sends it again.
            ClientError: see the tree in `client_errors.py`.
        """
        own_id = uuid.uuid4().hex if client_msg_id is None else client_msg_id
        body: dict[str, object] = {"message": text, "client_msg_id": own_id}
        if parent_id is not None:
            body["parentId"] = parent_id
        if metadata is not None:
            body["metadata"] = metadata
        try:
            encoded = msgspec.json.encode(body)
        except (TypeError, ValueError) as error:
            raise BadRequest(400, "VALIDATION_FAILED", "cannot be written as JSON") from error
        try:
            answer = await self._exchange.call(
                "POST",
                f"{_path(project)}/chat/messages",
                body=encoded,
                timeout_s=self._timeout_s if timeout_s is None else timeout_s,
            )
        except Unavailable as error:
            error.client_msg_id = own_id
            raise
        return decode(answer, Receipt)

    def follow(
        self,
        project: str,
        *,
        after: int | None = None,
        tail: int | None = None,
        events: Collection[str] | None = None,
        observer: FollowObserver | None = None,
    ) -> AsyncGenerator[Event, None]:
        """Yield the project's events from message `after` on (0: all); None: from now on.

        `tail` begins with the newest so many messages instead. Each message comes once and in the
        order of `seq`, over any number of connections; what the stream does not send is fetched
        from the history. After a `stream.reset` it goes on at the head: what was kept of the
        project is to be loaded again. `events` are the names to yield; None yields all but
        `heartbeat` and `replay.end`.

        Runs until closed or cancelled. Leave it with `contextlib.aclosing` where the connection
        must end at once.

        Raises:
            Unauthenticated, AccessDenied, BadRequest: the service refuses the stream for good.
            StreamEnded: it ended the stream for good, and there is no callable for another token.
            TokenFailed: no token could be had, several times in a row.
            ProtocolViolation: the address is not that of such a service.
            ClientClosed: the client was closed.
        """
        if after is not None and tail is not None:
            raise ValueError("either after or tail")
        if (after is not None and after < 0) or (tail is not None and not 1 <= tail <= 200):
            raise ValueError("after is at least 0, tail 1 to 200")
        return Following(
            self._exchange,
            _path(project),
            Position(after=after, tail=tail),
            FollowOptions(silence_s=self._silence_s, events=wanted(events)),
            observer or FollowObserver(),
            ClientBackoff(),
        ).events()

    async def history(
        self,
        project: str,
        *,
        after: int | None = None,
        before: int | None = None,
        limit: int = 50,
        order: Order = "asc",
    ) -> Page:
        """Return a page of messages with after < seq < before, at most 500."""
        bounds = {"after_seq": after, "before_seq": before, "limit": limit}
        params = {name: str(value) for name, value in bounds.items() if value is not None}
        answer = await self._exchange.call(
            "GET",
            f"{_path(project)}/chat/messages",
            params={**params, "order": order},
            timeout_s=self._timeout_s,
        )
        return page_of(answer)

    async def builds(
        self, project: str, *, status: str | None = None, limit: int = 50
    ) -> tuple[Build, ...]:
        """Return the project's builds, newest first, at most 500."""
        params = {"limit": str(limit)} | ({} if status is None else {"status": status})
        answer = await self._exchange.call(
            "GET", f"{_path(project)}/builds", params=params, timeout_s=self._timeout_s
        )
        return decode(answer, BuildList).builds


def _path(project: str) -> str:
    if not _PROJECT_ID.match(project):
        raise BadRequest(400, "VALIDATION_FAILED", "projectId: must match ^[A-Za-z0-9_-]{1,64}$")
    return f"/v1/projects/{project}"


def _base_url(url: str) -> str:
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


def _http_for(url: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        # Loading certificates takes long, and plain HTTP needs none. Redirects are not followed.
        verify=url.startswith("https:"),
        # As many streams as there are followers; the default would let the 101st wait.
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=20),
    )
