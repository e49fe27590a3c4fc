"""Where a follower is in a project's log, and what each block of the stream means for it. Pure.

docs/protocol.md §6. The service promises each message once and in order on one connection; over
many connections, and with the ranges that were not sent, the promise is kept here. Connecting and
fetching is in `following.py`.
"""

from __future__ import annotations

from collections import OrderedDict

import msgspec

from service.client.block_parser import Block
from service.client.client_answers import event_of
from service.client.client_events import MESSAGE_EVENTS, Event, decode, message_of

# A reconnect repeats at most the entries that stand in the window after the cursor.
_KEPT_ENTRIES = 4096


class Gap(msgspec.Struct, frozen=True):
    """Messages to fetch from the history: `after` < seq < `before`."""

    after: int
    before: int


class Incoming(msgspec.Struct, frozen=True):
    """What a block says: first fetch `gap`, then move the cursor, then hand `event` on."""

    event: Event | None = None
    gap: Gap | None = None
    cursor: int | None = None


class Ending(msgspec.Struct, frozen=True):
    """The stream ends after this block, by the word of the service."""

    reason: str
    reconnect: bool = True
    wait_s: float | None = None


class _Closing(msgspec.Struct):
    reason: str = "unknown"
    reconnect: bool = True


class _Refusal(msgspec.Struct, rename="camel"):
    code: str = "unknown"
    retry_after_ms: float = 0


class _Opening(msgspec.Struct, rename="camel"):
    head_seq: int
    cursor: int | None = None


class _ReplayEnd(msgspec.Struct, rename="camel"):
    live_from_seq: int


class _Reset(msgspec.Struct, rename="camel"):
    head_seq: int


class _HasEntryId(msgspec.Struct, rename="camel"):
    entry_id: str | None = None


class Position:
    """A cursor that only ever stands after what was handed on.

    `after` is the first cursor; None begins at the head, or with the newest `tail` messages.
    """

    def __init__(self, *, after: int | None, tail: int | None) -> None:
        self.cursor = after
        self._tail = None if after is not None else tail
        self._head_at_opening: int | None = None
        self._entries: OrderedDict[str, None] = OrderedDict()

    @property
    def headers(self) -> dict[str, str]:
        """The headers of the next request for the stream."""
        return {} if self.cursor is None else {"Last-Event-ID": str(self.cursor)}

    @property
    def query(self) -> dict[str, str]:
        """The query of the next request for the stream."""
        # Until the cursor is known, a reconnect asks for the newest messages again.
        return {} if self._tail is None or self.cursor is not None else {"tail": str(self._tail)}

    def read(self, block: Block) -> Incoming:
        """Return what a block means; the cursor stays until the caller moves it.

        Raises:
            ProtocolViolation: the data is not what the event's name says.
        """
        name = block.event
        if name in MESSAGE_EVENTS:
            return self._in_order(message_of(block.data, name))
        if not block.data:
            return Incoming()
        if name == "stream.open":
            return Incoming(Event(name, block.data), cursor=self._opened(block.data))
        if name == "stream.live":
            # Without a message since the opening, the newest ones are none.
            known = self.cursor is not None
            return Incoming(
                Event(name, block.data), cursor=None if known else self._head_at_opening
            )
        if name == "replay.end":
            before = decode(block.data, _ReplayEnd).live_from_seq
            return Incoming(Event(name, block.data), self._gap(before), before - 1)
        if name == "stream.reset":
            return Incoming(Event(name, block.data), cursor=decode(block.data, _Reset).head_seq)
        if block.id is not None and block.id.isascii() and block.id.isdigit() and _is_ours(name):
            return self._in_order(Event(name, block.data, int(block.id)))
        return Incoming(None if self._is_repeat(block.data) else event_of(name, block.data))

    def _opened(self, data: bytes) -> int | None:
        opened = decode(data, _Opening)
        self._head_at_opening = opened.head_seq
        if self.cursor is not None or opened.cursor is not None:
            return None if self.cursor is not None else opened.cursor
        return None if self._tail is not None else opened.head_seq

    def _in_order(self, event: Event) -> Incoming:
        seq = event.seq
        assert seq is not None
        if self.cursor is not None and seq <= self.cursor:
            return Incoming()
        return Incoming(event, self._gap(seq), seq)

    def _gap(self, before: int) -> Gap | None:
        if self.cursor is None or before <= self.cursor + 1:
            return None
        return Gap(self.cursor, before)

    def _is_repeat(self, data: bytes) -> bool:
        """Tell whether a transient entry was handed on before; it is remembered."""
        entry_id = decode(data, _HasEntryId).entry_id
        if entry_id is None:
            return False
        if entry_id in self._entries:
            return True
        self._entries[entry_id] = None
        if len(self._entries) > _KEPT_ENTRIES:
            self._entries.popitem(last=False)
        return False


def ending_of(block: Block) -> Ending | None:
    """Return how the stream ends, when the block says so."""
    asked_s = None if block.retry_ms is None else block.retry_ms / 1000
    if block.event == "stream.closing":
        closing = decode(block.data, _Closing)
        return Ending(closing.reason, closing.reconnect, asked_s)
    if block.event == "stream.refused":
        refusal = decode(block.data, _Refusal)
        return Ending(refusal.code, wait_s=refusal.retry_after_ms / 1000 or asked_s)
    return None


def _is_ours(name: str) -> bool:
    return not name.startswith("stream.")
