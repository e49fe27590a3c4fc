"""The client: sends messages to projects, follows them, and reads their history and builds.

Each method is one request of docs/protocol.md §4, or the stream of §6. How requests are made is in
`exchange.py`, how a project is followed in `following.py`.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping
from types import TracebackType
from typing import Self

import httpx

from service.client.addresses import answer_path, base_url, project_path
from service.client.answering import Answer, answering
from service.client.client_answers import AnswerView, BegunAnswer, StopReceipt
from service.client.client_backoff import ClientBackoff
from service.client.client_errors import Unavailable
from service.client.client_events import (
    Build,
    BuildList,
    Event,
    Order,
    Page,
    Receipt,
    decode,
    encode,
    page_of,
)
from service.client.exchange import Exchange
from service.client.following import Following, FollowObserver, FollowOptions, wanted
from service.client.position import Position
from service.client.token_source import Token, TokenSource, check_token

# Heartbeats come every 2 s at most: with less, every quiet project would look like a dead network.
_LEAST_SILENCE_S = 3.0


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
        self._url = base_url(url)
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
            answer = await self._exchange.call(
                "POST",
                f"{project_path(project)}/chat/messages",
                body=encode(body),
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
            project_path(project),
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
            f"{project_path(project)}/chat/messages",
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
            "GET", f"{project_path(project)}/builds", params=params, timeout_s=self._timeout_s
        )
        return decode(answer, BuildList).builds

    @contextlib.asynccontextmanager
    async def answer(
        self,
        project: str,
        *,
        reply_to: str | None = None,
        message_id: str | None = None,
        client_msg_id: str | None = None,
    ) -> AsyncIterator[Answer]:
        """Write an answer within the block, which readers see while it is written.

        It begins an answer to the message `reply_to`, or goes on with `message_id`, an answer that
        a member asked this assistant to write again: `answer.state` with the caller's own user id
        and index -1. It ends with the block: completed, or as failed with what was written when
        the block raises, and also when it is cancelled (then within 2 s). When a member stopped it,
        `write` raises `AnswerStopped`, which the end of the block takes. The token needs the scope
        `worker`.

        Begun again with the same `client_msg_id`, it is the same answer; without one, an id is
        made.

        Raises:
            Conflict: that answer has ended before (`ANSWER_ENDED`), or the client_msg_id was used
                for another message.
            Unavailable: it could not be begun, or not be ended, in time.
            ClientError: see the tree in `client_errors.py`.
        """
        if (reply_to is None) == (message_id is None):
            raise ValueError("either reply_to or message_id")
        begun = (
            BegunAnswer(message_id, "in_progress")
            if message_id is not None
            else await self._begin(
                f"{project_path(project)}/answers", client_msg_id, replyTo=reply_to
            )
        )
        path = answer_path(project, begun.message_id)
        async with answering(self._exchange, path, begun, timeout_s=self._timeout_s) as answer:
            yield answer

    async def answer_state(self, project: str, message_id: str) -> AnswerView:
        """Return how far an answer is, or how it ended.

        Raises:
            Refused: 404, there is no such answer.
            ClientError: see the tree in `client_errors.py`.
        """
        answer = await self._exchange.call(
            "GET", answer_path(project, message_id), timeout_s=self._timeout_s
        )
        return decode(answer, AnswerView)

    async def stop_answer(self, project: str, message_id: str) -> str:
        """Stop an answer, which keeps the text so far; return `stopping`, or how it has ended."""
        answer = await self._exchange.call(
            "POST", f"{answer_path(project, message_id)}/stop", timeout_s=self._timeout_s
        )
        return decode(answer, StopReceipt).status

    async def regenerate_answer(
        self, project: str, message_id: str, *, client_msg_id: str | None = None
    ) -> BegunAnswer:
        """Ask for another answer to the same message; return what was begun.

        Raises:
            Conflict: the answer is still being written (`ANSWER_IN_PROGRESS`).
            ClientError: see the tree in `client_errors.py`.
        """
        path = f"{answer_path(project, message_id)}/regenerate"
        return await self._begin(path, client_msg_id)

    async def _begin(self, path: str, client_msg_id: str | None, **body: object) -> BegunAnswer:
        own_id = uuid.uuid4().hex if client_msg_id is None else client_msg_id
        try:
            answer = await self._exchange.call(
                "POST",
                path,
                body=encode({**body, "client_msg_id": own_id}),
                timeout_s=self._timeout_s,
            )
        except Unavailable as error:
            error.client_msg_id = own_id
            raise
        return decode(answer, BegunAnswer)


def _http_for(url: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        # Loading certificates takes long, and plain HTTP needs none. Redirects are not followed.
        verify=url.startswith("https:"),
        # As many streams as there are followers; the default would let the 101st wait.
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=20),
    )
