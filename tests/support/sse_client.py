"""An EventSource client that reconnects as browsers do and records every block for `checker.py`.

The stream is parsed by httpx-sse, a third-party parser. It returns blocks without data as well:
they are recorded, and `checker.py` reports them (docs/protocol.md §6).

Unlike a browser, the client uses the next address when it reconnects, as behind a load balancer,
and can read slowly or stop reading.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from types import TracebackType
from typing import Self
from urllib.parse import urlencode

import httpx
import msgspec
from httpx_sse import EventSource, ServerSentEvent

from tests.support.history import ClientHistory, Connection, Event
from tests.support.waiting import wait_until

UNOPENED = " before its first event"  # how such a connection's entry in `ends` ends
_DEFAULT_RETRY_S = 1.0  # until the stream says `retry:`; browsers take some seconds
_CONNECT_TIMEOUT_S = 5.0


class _Position(msgspec.Struct, rename="camel"):
    """The seqs of a control event that moves the cursor."""

    head_seq: int = 0
    live_from_seq: int = 0


class SseClient:
    """One client of one project's stream; `async with` runs it in its own task.

    `from_seq` is the first cursor (None: live from head). `silence_limit_s` ends a connection that
    receives nothing for that long, as a client that watches heartbeats would; None never ends it,
    as a plain EventSource. `slow_bytes_per_s` limits the rate of reading. `stall_after` stops
    reading after that many messages, until `resume()`. `base_urls` are tried in turn, from number
    `first_url` on.
    """

    def __init__(
        self,
        name: str,
        base_urls: Sequence[str],
        project_id: str,
        token: str,
        *,
        from_seq: int | None = 0,
        silence_limit_s: float | None = None,
        slow_bytes_per_s: float | None = None,
        stall_after: int | None = None,
        first_url: int = 0,
    ) -> None:
        self.name = name
        self.project_id = project_id
        self.token = token
        self.cursor: str | None = None  # what a browser holds as Last-Event-ID
        self.highest_seq = from_seq or 0
        self.live = False  # past the replay of the open connection
        self.reconnects = 0
        self.ends: list[str] = []  # how each connection ended: an error, or the stream's last event
        self.retry_s = _DEFAULT_RETRY_S
        self.failure: str | None = None  # a response after which an EventSource never reconnects
        self._base_urls = list(base_urls)
        self._turn = first_url
        self._from_seq = from_seq
        self._slow_bytes_per_s = slow_bytes_per_s
        self._stall_after = stall_after
        self._silence_limit_s = silence_limit_s
        self._resumed = asyncio.Event()
        self._messages = 0
        self._connections: list[tuple[str | None, list[Event]]] = []
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name=f"sse-{self.name}")
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End the connection and the client. Raises an error of the client's own task."""
        if self._task is None:
            return
        task, self._task = self._task, None
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    def resume(self) -> None:
        """Let a stalled client read again."""
        self._stall_after = None
        self._resumed.set()

    def history(self, *, must_reach_head: bool = True, keeps_up: bool = True) -> ClientHistory:
        """Return everything recorded so far."""
        connections = tuple(
            Connection(cursor, tuple(events)) for cursor, events in self._connections
        )
        return ClientHistory(self.name, self.project_id, connections, must_reach_head, keeps_up)

    def events(self, *names: str) -> list[Event]:
        """Return the events of these names (all, if none is given), over all connections."""
        return [
            event
            for _, events in self._connections
            for event in events
            if not names or event.name in names
        ]

    async def wait_until(self, condition: Callable[[Self], bool], *, timeout_s: float) -> None:
        """Wait until `condition(client)` holds. Raises a TimeoutError otherwise."""

        def holds() -> bool:
            if condition(self):
                return True
            self._raise_if_ended()
            return False

        await wait_until(holds, timeout_s=timeout_s, what=f"the wait of client {self.name}")

    async def wait_live(self, *, timeout_s: float = 10.0) -> None:
        """Wait until the open connection has ended its replay."""
        await self.wait_until(lambda client: client.live, timeout_s=timeout_s)

    async def wait_seq(self, seq: int, *, timeout_s: float = 10.0) -> None:
        """Wait until a message with at least this seq is received or announced as not sent."""
        await self.wait_until(lambda client: client.highest_seq >= seq, timeout_s=timeout_s)

    async def wait_seq_steadily(self, seq: int, *, silence_s: float = 30.0) -> None:
        """Wait for a message with at least this seq; gives up after `silence_s` without any."""
        while (reached := self.highest_seq) < seq:
            await self.wait_until(
                lambda client, before=reached: client.highest_seq > before,  # type: ignore[misc]
                timeout_s=silence_s,
            )

    def _raise_if_ended(self) -> None:
        if self.failure is not None:
            raise AssertionError(f"client {self.name} gave up: {self.failure}")
        if self._task is not None and self._task.done():
            self._task.result()
            raise AssertionError(f"client {self.name} has ended")

    async def _run(self) -> None:
        timeout = httpx.Timeout(_CONNECT_TIMEOUT_S, read=self._silence_limit_s)
        # verify=False: loading certificates takes long, and all is plain HTTP here.
        async with httpx.AsyncClient(verify=False, trust_env=False, timeout=timeout) as http:
            while True:
                await self._connect(http)
                if self.failure is not None:
                    return
                await asyncio.sleep(self.retry_s)
                self.reconnects += 1
                self._turn += 1

    async def _connect(self, http: httpx.AsyncClient) -> None:
        query = {"token": self.token}
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        if self._from_seq is not None:
            # An EventSource repeats its URL at every reconnect; Last-Event-ID takes precedence.
            query["from_seq"] = str(self._from_seq)
        if self.cursor is not None:
            headers["Last-Event-ID"] = self.cursor
        base_url = self._base_urls[self._turn % len(self._base_urls)]
        url = f"{base_url}/v1/projects/{self.project_id}/chat/stream?{urlencode(query)}"
        events: list[Event] = []
        self._connections.append((self.cursor or query.get("from_seq"), events))
        try:
            async with http.stream("GET", url, headers=headers) as response:
                kind = response.headers.get("content-type", "")
                if response.status_code != 200 or not kind.startswith("text/event-stream"):
                    self.failure = f"status {response.status_code}, {kind}"
                    return
                if self._slow_bytes_per_s is not None:
                    assert isinstance(response.stream, httpx.AsyncByteStream)
                    response.stream = _SlowStream(response.stream, self._slow_bytes_per_s)
                blocks = EventSource(response).aiter_sse()
                async with contextlib.aclosing(blocks):
                    async for block in blocks:
                        await self._take(block, events)
            self.ends.append(_last_event(events))
        except httpx.TransportError as error:
            # An EventSource reconnects after a reset, a refusal and a timeout.
            self.ends.append(type(error).__name__ + ("" if events else UNOPENED))
        finally:
            self.live = False

    async def _take(self, block: ServerSentEvent, events: list[Event]) -> None:
        if block.retry is not None:
            self.retry_s = block.retry / 1000
        if block.id:
            self.cursor = block.id
        # A block without data is recorded without a name.
        name = block.event if block.data else ""
        events.append(Event(name, block.id, block.data.encode(), time.monotonic()))
        if name in ("message.new", "message.replay"):
            self.highest_seq = max(self.highest_seq, int(block.id or 0))
            self._messages += 1
            if self._stall_after is not None and self._messages >= self._stall_after:
                await self._resumed.wait()
        elif name == "stream.live":
            self.live = True
        elif name in ("replay.end", "stream.reset"):
            position = msgspec.json.decode(block.data, type=_Position)
            self.highest_seq = max(position.head_seq, position.live_from_seq - 1)


def _last_event(events: Sequence[Event]) -> str:
    last = [event for event in events if event.name in ("stream.closing", "stream.refused")]
    return f"{last[-1].name} {last[-1].data.decode()}" if last else "ended without an event"


class _SlowStream(httpx.AsyncByteStream):
    """A response body, read at `bytes_per_s` at most."""

    def __init__(self, stream: httpx.AsyncByteStream, bytes_per_s: float) -> None:
        self._stream = stream
        self._bytes_per_s = bytes_per_s

    async def __aiter__(self) -> AsyncIterator[bytes]:
        piece = max(1, int(self._bytes_per_s / 20))
        async for data in self._stream:
            for start in range(0, len(data), piece):
                part = data[start : start + piece]
                yield part
                await asyncio.sleep(len(part) / self._bytes_per_s)

    async def aclose(self) -> None:
        await self._stream.aclose()
