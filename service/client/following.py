"""Following one project: connect, read, fetch what was not sent, wait, connect again.

What a block means is in `position.py`. Nothing is buffered here: while a gap is fetched, or the
caller is busy, the stream is not read, and the service waits or ends it as that of a slow client.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Collection

import msgspec

from service.client.block_parser import Block, BlockParser
from service.client.client_backoff import ClientBackoff
from service.client.client_errors import StreamEnded, TokenFailed, Unavailable
from service.client.client_events import MESSAGE_EVENTS, Event, Message, page_of
from service.client.exchange import Exchange, Interrupted
from service.client.position import Ending, Gap, Position, ending_of

_log = logging.getLogger(__name__)

GAP_PAGE = 200
_GAP_TIMEOUT_S = 30.0
_MAX_TOKEN_FAILURES = 5
_DEFAULT_HIDDEN = frozenset({"heartbeat", "replay.end"})
_HEARTBEATS_S = (2, 60)


class FollowObserver:
    """What happens on the wire, for those who count. Every method does nothing."""

    def connecting(self, cursor: int | None) -> None:
        """The stream is asked for; what it sends belongs to this connection."""

    def received(self, size_bytes: int) -> None:
        """Bytes arrived."""

    def block(self, block: Block) -> None:
        """A block arrived, before repeats are left out."""

    def fetched(self, message: Message) -> None:
        """A message of a gap came from the history."""

    def interrupted(self, why: str, wait_s: float) -> None:
        """The connection ended, or none could be made; the next attempt is after the wait."""


class FollowOptions(msgspec.Struct, frozen=True):
    """How to follow. `events` are the names to hand on; None leaves out what only serves the wire.

    `silence_s` without a byte ends a connection; the service is asked for heartbeats thrice as
    often.
    """

    silence_s: float = 45.0
    events: frozenset[str] | None = None

    @property
    def heartbeat_s(self) -> int:
        """The interval to ask for, in whole seconds that the service takes."""
        least, most = _HEARTBEATS_S
        return min(max(int(self.silence_s / 3), least), most)


def wanted(events: Collection[str] | str | None) -> frozenset[str] | None:
    """Return the names to hand on; a missed message is wanted where a new one is."""
    if events is None:
        return None
    names = frozenset({events} if isinstance(events, str) else events)
    return names | MESSAGE_EVENTS if names & MESSAGE_EVENTS else names


class Following:
    """One follower of one project. `events` is to be iterated once."""

    def __init__(
        self,
        exchange: Exchange,
        project_path: str,
        position: Position,
        options: FollowOptions,
        observer: FollowObserver,
        backoff: ClientBackoff,
    ) -> None:
        self._exchange = exchange
        self._path = project_path
        self._position = position
        self._options = options
        self._observer = observer
        self._backoff = backoff
        self._token_failures = 0
        self._ending: Ending | None = None

    async def events(self) -> AsyncGenerator[Event, None]:
        """Yield the events, over any number of connections, until an error that is final."""
        while True:
            why, asked_s = "the stream ended", None
            try:
                connection = self._connection()
                async with contextlib.aclosing(connection):
                    async for event in connection:
                        if self._is_wanted(event.name):
                            yield event
            except Interrupted as error:
                why, asked_s = error.why, error.retry_after_s
            except Unavailable as error:
                why = f"the history: {error.last}"
            except TokenFailed:
                self._token_failures += 1
                if self._token_failures >= _MAX_TOKEN_FAILURES:
                    raise
                why = "no token could be had"
            if self._ending is not None:
                why, asked_s = self._ending.reason, self._ending.wait_s
                if not self._ending.reconnect and not self._exchange.can_renew:
                    raise StreamEnded(self._ending.reason)
                # An expired token is refused at the next attempt, and renewed there once for all
                # that follow; who lost access is refused with whatever token.
            wait_s = self._backoff.next_s(asked_s)
            self._observer.interrupted(why, wait_s)
            _log.info(
                "stream interrupted",
                extra={"path": self._path, "cursor": self._position.cursor, "error": why},
            )
            await asyncio.sleep(wait_s)

    async def _connection(self) -> AsyncGenerator[Event, None]:
        """Yield the events of one connection, with the gaps before them."""
        position, observer = self._position, self._observer
        self._ending = None
        observer.connecting(position.cursor)
        parser = BlockParser()
        stream = self._exchange.stream(
            f"{self._path}/chat/stream",
            silence_s=self._options.silence_s,
            params={"heartbeat": str(self._options.heartbeat_s), **position.query},
            headers=position.headers,
        )
        async with stream as pieces:
            async for piece in pieces:
                observer.received(len(piece))
                for block in parser.feed(piece):
                    observer.block(block)
                    self._note(block)
                    ending = ending_of(block)
                    incoming = position.read(block)
                    if incoming.gap is not None:
                        async for message in self._fetch(incoming.gap):
                            yield message
                    if incoming.cursor is not None:
                        position.cursor = incoming.cursor
                    if incoming.event is not None:
                        yield incoming.event
                    if ending is not None:
                        self._ending = ending
                        return

    def _note(self, block: Block) -> None:
        if block.retry_ms is not None and block.event in ("stream.open", "stream.reset"):
            self._backoff.begin_with(block.retry_ms / 1000)
        if block.event in MESSAGE_EVENTS or block.event == "stream.live":
            # Only now: a service that fails right after opening is not to be hurried.
            self._backoff.reset()
            self._token_failures = 0

    async def _fetch(self, gap: Gap) -> AsyncGenerator[Message, None]:
        """Yield a gap's messages, oldest first; the cursor follows them."""
        after = gap.after
        while after < gap.before - 1:
            asked_after = after
            page = page_of(
                await self._exchange.call(
                    "GET",
                    f"{self._path}/chat/messages",
                    params={
                        "after_seq": str(after),
                        "before_seq": str(gap.before),
                        "limit": str(GAP_PAGE),
                    },
                    timeout_s=_GAP_TIMEOUT_S,
                )
            )
            for message in page.messages:
                if after < message.seq < gap.before:
                    after = self._position.cursor = message.seq
                    self._observer.fetched(message)
                    yield message
            after = max(after, page.next_after_seq or 0)
            if not page.has_more or after == asked_after:
                return

    def _is_wanted(self, name: str) -> bool:
        if self._options.events is None:
            return name not in _DEFAULT_HIDDEN
        return name in self._options.events
