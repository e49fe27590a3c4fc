"""One open stream: its opening, its replay, and its life until it ends (docs/protocol.md §6).

A connection is a cursor, not a queue. While it keeps up it is written to by its project's
`Broadcast` and its task sleeps; when it is blocked it waits for its socket and catches up from
whatever tier covers it.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import Sequence
from typing import Literal

import msgspec

from service.http.wire import Wire
from service.streaming.broadcast import Broadcast
from service.streaming.outgoing import Outgoing
from service.telemetry.metrics import Metrics
from streams.model import sse
from streams.model.build import told_by
from streams.model.errors import LogRestored, LogUnavailable
from streams.tail.reader import Piece, Reader, Source

_log = logging.getLogger(__name__)

MAX_REPLAY = 200
# Clients of a process that goes away come back spread over this long.
RETRY_SPREAD_MS = 3000

# How long a client whose socket is full may take to make room for `stream.closing`.
_GOODBYE_GRACE_S = 1.0

CloseReason = Literal["shutdown", "token_expired", "access_revoked", "slow_client", "max_age"]
ResetReason = Literal["invalid_cursor", "cursor_ahead"]

_encode = msgspec.json.encode


class StreamTimes(msgspec.Struct, frozen=True):
    """The settings that a connection needs. Seconds, but for `retry_ms`."""

    retry_ms: int
    slow_client_s: float


class Connection:
    """The stream of one client. `run` is its whole life, in the request's task.

    From `close` on nothing is written but `stream.closing` (docs/protocol.md §2, G9): `close`
    takes the connection out of its group and interrupts its task whatever that waits for, and
    `_send` refuses. What the client has not taken a second later is dropped.
    """

    __slots__ = (
        "_broadcast",
        "_builds",
        "_closing",
        "_first",
        "_head",
        "_headers",
        "_metrics",
        "_replay_end",
        "_reset",
        "_task",
        "_times",
        "_waiter",
        "_was_restored",
        "connection_id",
        "cursor",
        "expires_at_s",
        "member_since",
        "opened_at",
        "project_id",
        "reader",
        "user_id",
        "wire",
        "written_at",
    )

    def __init__(
        self,
        wire: Wire,
        broadcast: Broadcast,
        reader: Reader,
        metrics: Metrics,
        times: StreamTimes,
        *,
        connection_id: str,
        project_id: str,
        user_id: str,
        cursor: int | None,
        reset: ResetReason | None,
        expires_at_s: float | None,
        member_since: float,
        headers: list[tuple[bytes, bytes]],
        builds: Sequence[tuple[str, int, bytes]] = (),
    ) -> None:
        self.wire = wire
        self.reader = reader
        self.connection_id = connection_id
        self.project_id = project_id
        self.user_id = user_id
        self.cursor = cursor
        self.expires_at_s = expires_at_s
        # When the membership was last confirmed: a time of `AccessControl`'s clock.
        self.member_since = member_since
        self.opened_at = asyncio.get_running_loop().time()
        # Nothing was written as yet: no heartbeat may come before the response's head.
        self.written_at = math.inf
        self._broadcast = broadcast
        # The unfinished builds (revision and frame) that the replay has not shown as yet.
        self._builds = {build_id: (revision, frame) for build_id, revision, frame in builds}
        # Until the response has begun.
        self._headers: list[tuple[bytes, bytes]] | None = headers
        self._metrics = metrics
        self._times = times
        self._reset = reset
        self._was_restored = False
        self._closing: CloseReason | None = None
        self._task: asyncio.Task[object] | None = None
        self._waiter: asyncio.Future[None] | None = None
        # Where the replay ends and live begins: the tail's end as it is now, before any read.
        tail = broadcast.tail
        self._head = max(tail.last_seq, cursor or 0)
        self._replay_end = tail.end_index
        self._first: Piece | None = None
        if cursor is None:
            reader.at(tail.last_seq, tail.end_index)

    async def prepare(self) -> None:
        """Read the first missed messages, so that what cannot be served is refused before it opens.

        Raises:
            LogUnavailable: the cursor needs the log, and it does not answer.
        """
        if self.cursor is not None:
            self._first = await self._read_replay(min(self._missed, MAX_REPLAY))

    @property
    def _missed(self) -> int:
        return 0 if self.cursor is None else self._head - self.cursor

    @property
    def _truncated(self) -> bool:
        return self._missed > MAX_REPLAY

    async def run(self) -> str:
        """Serve the stream until it ends; return why."""
        self.wire.on_change(self.wake)
        task = self._task = asyncio.current_task()
        assert task is not None
        try:
            try:
                await self._serve()
            except asyncio.CancelledError:
                # By `close`, unless the request was cancelled as well.
                if self._closing is None or task.uncancel() > 0:
                    raise
            except (_Closing, _Gone):
                pass
            except _Slow:
                self._closing = self._closing or "slow_client"
            self._task = None
            if self._closing is None:
                return "client"
            await self._say_goodbye(self._closing)
            return self._closing
        finally:
            self._task = None
            self._broadcast.leave(self)
            await self.wire.finish()

    async def _serve(self) -> None:
        """Write the stream, for ever: it ends by an exception."""
        assert self._headers is not None
        try:
            # The client may not have taken the answer to what it asked before.
            async with asyncio.timeout(self._times.slow_client_s):
                await self.wire.start([*STREAM_HEADERS, *self._headers])
        except TimeoutError:
            raise _Slow from None
        self._headers = None
        self._open()
        if self.cursor is not None:
            await self._replay()
        if self._builds:
            await self._write_when_taken([frame for _, frame in self._builds.values()])
            self._builds = {}
        self._event("stream.live", {"projectId": self.project_id, "headSeq": self._tail_head})
        await self._follow()

    def close(self, reason: CloseReason) -> None:
        """End the stream with `stream.closing`, and nothing else from now on.

        The first reason counts.
        """
        if self._closing is not None:
            return
        self._closing = reason
        self._broadcast.leave(self)
        if self._task is not None:
            self._task.cancel()
            self._task = None

    @property
    def is_closing(self) -> bool:
        """Whether `close` was called: nothing but `stream.closing` is written any more."""
        return self._closing is not None

    def wake(self) -> None:
        """Let the connection's task look around."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    @property
    def _tail_head(self) -> int:
        return max(self._head, self._broadcast.tail.last_seq)

    # Opening and replay.

    def _open(self) -> None:
        first = self._first
        source: Source = "none"
        if first is not None and first.frames:
            source = self.reader.source
        frames = [
            sse.priming(self._times.retry_ms, self._head if self.cursor is None else self.cursor),
            sse.event_frame(
                "stream.open",
                _encode(
                    {
                        "projectId": self.project_id,
                        "connectionId": self.connection_id,
                        "cursor": self.cursor,
                        "headSeq": self._head,
                        "truncated": self._truncated,
                        "source": source,
                    }
                ),
            ),
        ]
        if self._reset is not None:
            frames.append(self._reset_frame(self._reset))
        self._write(frames)

    def _reset_frame(self, reason: ResetReason) -> bytes:
        data = {"projectId": self.project_id, "reason": reason, "headSeq": self._head}
        return sse.event_frame("stream.reset", _encode(data))

    async def _read_replay(self, left: int) -> Piece:
        # With nothing left of the 200 there may still be transient entries up to the live end.
        return await self.reader.read(
            limit=max(left, 1), end_index=None if self._truncated else self._replay_end
        )

    async def _replay(self) -> None:
        left = min(self._missed, MAX_REPLAY)
        sent = 0
        piece = self._first
        self._first = None
        while piece is not None and (piece.frames or left > 0):
            if not piece.frames:
                # The tail was behind the cursor's own messages; live brings them.
                break
            await self._until_taken()
            self._send(self._broadcast.replays.of(piece.frames))
            if self._builds:
                self._note_shown(piece.frames)
            left -= piece.messages
            sent += piece.messages
            if left <= 0 and self._truncated:
                break
            if not self._truncated and self._at_live():
                break
            piece = await self._read_replay_patiently(left)
        source = self.reader.source
        self._metrics.replays.labels(source).inc()
        self._metrics.replayed_messages.labels(source).inc(sent)
        if self._truncated and not self._was_restored:
            assert self.cursor is not None
            last = self.cursor + sent
            self._event(
                "replay.end",
                {
                    "message": "Older messages were not sent; fetch them from the history",
                    "projectId": self.project_id,
                    "lastReplayedSeq": last,
                    "liveFromSeq": self._head + 1,
                    "hasMore": True,
                },
            )
            self.reader.at(self._head, self._replay_end)

    def _note_shown(self, frames: Sequence[bytes]) -> None:
        for frame in frames:
            if frame.startswith(b"event: build.status\n"):
                told = told_by(sse.data_of(frame))
                if told is not None and told[0] in self._builds:
                    build_id, revision, _ = told
                    if revision >= self._builds[build_id][0]:
                        del self._builds[build_id]

    def _at_live(self) -> bool:
        return self.reader.index is not None and self.reader.index >= self._replay_end

    async def _read_replay_patiently(self, left: int) -> Piece:
        while True:
            try:
                return await self._read_replay(left)
            except LogRestored as error:
                self._tell_restored(error.head)
                return Piece([], error.head, None, 0)
            except LogUnavailable as error:
                await self._sleep(error.retry_after_s)

    # Live.

    async def _follow(self) -> None:
        while True:
            await self._until_taken()
            try:
                piece = await self.reader.read()
            except LogRestored as error:
                self._tell_restored(error.head)
                continue
            except LogUnavailable as error:
                # The stream stays open and goes on when the log is back.
                await self._sleep(error.retry_after_s)
                continue
            if piece.frames:
                await self._write_when_taken(piece.frames)
            elif self.reader.at_end:
                self._broadcast.join(self)
                # Woken for another reason it is still written to by the group: it must not read.
                while self._broadcast.is_live(self) and not self.wire.lost:
                    await self._until_woken()
            else:
                self._broadcast.wait(self)
                await self._until_woken()
            if self.wire.lost:
                raise _Gone

    def _tell_restored(self, head: int) -> None:
        self._head = head
        self._was_restored = True
        # With a new cursor, or the next reconnect would be ahead of the log again.
        self._write([sse.priming(self._times.retry_ms, head), self._reset_frame("cursor_ahead")])

    def is_due(self, now: float, heartbeat_s: float) -> bool:
        """Tell whether a heartbeat is due; leave the group when the client is blocked."""
        if self._closing is not None:
            return False
        if self.wire.blocked:
            if self._broadcast.is_live(self):
                self._broadcast.leave(self)
                self.wake()
            return False
        return now - self.written_at >= heartbeat_s and not self.wire.lost

    def beat(self, now: float, heartbeat: Outgoing) -> None:
        """Send a heartbeat."""
        self._send(heartbeat)
        self.written_at = now

    async def _say_goodbye(self, reason: CloseReason) -> None:
        """Write `stream.closing`, if the client makes room for it in time."""
        loop = asyncio.get_running_loop()
        until = loop.time() + (0 if reason == "slow_client" else _GOODBYE_GRACE_S)
        while self.wire.blocked and not self.wire.lost and loop.time() < until:
            await asyncio.wait([self._until_woken()], timeout=until - loop.time())
        if self._headers is not None or self.wire.blocked or self.wire.lost:
            return
        # The client would be refused for good after these two: it should get a new token first.
        reconnect = reason not in ("token_expired", "access_revoked")
        delay_ms = self._times.retry_ms
        if reason == "shutdown":
            delay_ms = random.randint(200, RETRY_SPREAD_MS)
        data = _encode({"reason": reason, "reconnect": reconnect})
        outgoing = Outgoing([sse.retry(delay_ms), sse.event_frame("stream.closing", data)])
        self.wire.write(outgoing.chunk)
        outgoing.count(self._metrics, 1)

    # Writing.

    def _event(self, event: str, data: object) -> None:
        self._write([sse.event_frame(event, _encode(data))])

    def _write(self, frames: list[bytes]) -> None:
        self._send(Outgoing(frames))

    def _send(self, outgoing: Outgoing) -> None:
        if self._closing is not None:
            raise _Closing
        self.wire.write(outgoing.chunk)
        self.written_at = asyncio.get_running_loop().time()
        outgoing.count(self._metrics, 1)

    async def _write_when_taken(self, frames: list[bytes]) -> None:
        await self._until_taken()
        self._write(frames)

    async def _until_taken(self) -> None:
        """Wait until the client takes bytes; give up when it took none for too long."""
        if self.wire.lost:
            raise _Gone
        if not self.wire.blocked:
            return
        self._metrics.sse_backpressure.inc()
        loop = asyncio.get_running_loop()
        backlog = self.wire.backlog_bytes
        deadline = loop.time() + self._times.slow_client_s
        while self.wire.blocked:
            await self._sleep(min(1.0, self._times.slow_client_s / 4))
            if self.wire.lost:
                raise _Gone
            if self.wire.backlog_bytes < backlog:
                backlog = self.wire.backlog_bytes
                deadline = loop.time() + self._times.slow_client_s
            elif loop.time() >= deadline:
                raise _Slow

    def _until_woken(self) -> asyncio.Future[None]:
        # Not a coroutine: nearly all connections are here, and each frame is memory.
        self._waiter = asyncio.get_running_loop().create_future()
        if self.wire.lost:
            self._waiter.set_result(None)
        return self._waiter

    async def _sleep(self, seconds: float) -> None:
        """Sleep for so long, or until woken."""
        waiter = self._until_woken()
        if not waiter.done():
            await asyncio.wait([waiter], timeout=seconds)
        if self.wire.lost:
            raise _Gone


class _Closing(Exception):
    """The stream is closing: nothing more may be written."""


class _Gone(Exception):
    """The client is gone."""


class _Slow(Exception):
    """The client took no byte for too long."""


STREAM_HEADERS = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-store, no-transform"),
    (b"x-accel-buffering", b"no"),
]


def refusal(code: str, retry_after_ms: int) -> bytes:
    """A whole stream that refuses: a reconnect delay and `stream.refused`."""
    return sse.retry(retry_after_ms) + sse.event_frame(
        "stream.refused", _encode({"code": code, "retryAfterMs": retry_after_ms})
    )
