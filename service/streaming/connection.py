"""One open stream: opening, replay, live and end, in this order (docs/protocol.md §6).

A connection is a cursor, not a queue. While the client keeps up, its project's `Broadcast` writes
to it and its task sleeps. When the socket is blocked, the task waits for it and then catches up
from the highest tier that covers the cursor. Frames are made in `stream_frames.py`; waiting for
the socket is in `stream_writer.py`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

import msgspec

from service.http.wire import Wire
from service.streaming import stream_frames
from service.streaming.broadcast import Broadcast
from service.streaming.outgoing import Outgoing
from service.streaming.stream_frames import STREAM_HEADERS, CloseReason, ResetReason
from service.streaming.stream_writer import (
    ClientGone,
    ClientSlow,
    StreamClosing,
    StreamTimes,
    StreamWriter,
)
from service.telemetry.metrics import Metrics
from streams.model import sse
from streams.model.build_states import read_build_status
from streams.model.errors import LogRestored, LogUnavailable
from streams.tail.reader import Piece, Reader, Source

_log = logging.getLogger(__name__)

MAX_REPLAY = 200
# How long a client whose socket is full may take to make room for `stream.closing`.
_CLOSING_GRACE_S = 1.0


class StreamRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Who opens a stream, and from which cursor.

    `cursor` is None when the client sent none, or none that is usable: then `reset` says why.
    `start` is the seq that the stream starts after, None for live from head. `heartbeat_s` is the
    silence after which a heartbeat is sent.
    `expires_at_s` is unix time; `member_since` is when the membership was last confirmed, in the
    time of `AccessControl`'s clock. `headers` are added to the response's. `builds` are the
    unfinished builds: id, revision and frame. `answers` returns the frames of `answer.state` of the
    unfinished answers, as they are when it is called. `as_admin`: the stream needs no membership,
    but that the project exists.
    """

    connection_id: str
    project_id: str
    user_id: str
    cursor: int | None
    start: int | None
    heartbeat_s: float
    reset: ResetReason | None
    expires_at_s: float | None
    member_since: float
    headers: list[tuple[bytes, bytes]]
    builds: Sequence[tuple[str, int, bytes]] = ()
    answers: Callable[[], Sequence[bytes]] = tuple
    as_admin: bool = False


class Connection(StreamWriter):
    """The stream of one client. `run` serves it to its end, in the request's task.

    After `close` only `stream.closing` is written (docs/protocol.md §2, G9): `close` takes the
    connection out of its broadcast and cancels whatever its task waits for, and `_send` raises.
    Bytes that the client has not taken a second later are dropped.
    """

    __slots__ = (
        "_answers",
        "_broadcast",
        "_builds",
        "_first",
        "_head",
        "_headers",
        "_lost_pieces",
        "_replay_end",
        "_reset",
        "_task",
        "_was_restored",
        "as_admin",
        "connection_id",
        "cursor",
        "expires_at_s",
        "heartbeat_s",
        "member_since",
        "opened_at",
        "project_id",
        "reader",
        "start",
        "user_id",
    )

    def __init__(
        self,
        wire: Wire,
        broadcast: Broadcast,
        reader: Reader,
        metrics: Metrics,
        times: StreamTimes,
        request: StreamRequest,
    ) -> None:
        super().__init__(wire, metrics, times)
        start = request.start
        self.reader = reader
        self.connection_id = request.connection_id
        self.project_id = request.project_id
        self.user_id = request.user_id
        self.cursor = request.cursor
        self.start = start
        self.heartbeat_s = request.heartbeat_s
        self.expires_at_s = request.expires_at_s
        self.member_since = request.member_since
        self.as_admin = request.as_admin
        self.opened_at = asyncio.get_running_loop().time()
        self._broadcast = broadcast
        # The unfinished builds (revision and frame) that the replay has not shown yet.
        self._builds = {build_id: (revision, frame) for build_id, revision, frame in request.builds}
        self._answers = request.answers
        # Whether pieces of answers may have left the tail before they were written.
        self._lost_pieces = False
        # None once the response has begun.
        self._headers: list[tuple[bytes, bytes]] | None = request.headers
        self._reset = request.reset
        self._was_restored = False
        self._task: asyncio.Task[object] | None = None
        # Where the replay ends and live begins: the tail's end as it is now, before any read.
        tail = broadcast.tail
        self._head = max(tail.last_seq, start or 0)
        self._replay_end = tail.end_index
        self._first: Piece | None = None
        if start is None:
            reader.at(tail.last_seq, tail.end_index)

    async def prepare(self) -> None:
        """Read the first missed messages while the stream can still be refused.

        Raises:
            LogUnavailable: the cursor needs the log, and it does not answer.
        """
        if self.start is not None:
            self._first = await self._read_replay(min(self._missed, MAX_REPLAY))

    @property
    def _missed(self) -> int:
        return 0 if self.start is None else self._head - self.start

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
            except (StreamClosing, ClientGone):
                pass
            except ClientSlow:
                self._closing = self._closing or "slow_client"
            self._task = None
            if self._closing is None:
                return "client"
            await self._write_closing(self._closing)
            return self._closing
        finally:
            self._task = None
            self._broadcast.leave(self)
            await self.wire.finish()

    async def _serve(self) -> None:
        """Write the stream until an exception ends it."""
        assert self._headers is not None
        try:
            # The client may still have to take the answer to its previous request.
            async with asyncio.timeout(self._times.slow_client_s):
                await self.wire.start([*STREAM_HEADERS, *self._headers])
        except TimeoutError:
            raise ClientSlow from None
        self._headers = None
        self._open()
        if self.start is not None:
            await self._replay()
        if self._builds:
            await self._write_when_taken([frame for _, frame in self._builds.values()])
            self._builds = {}
        await self._write_answers()
        self._write([stream_frames.live(self.project_id, self._tail_head)])
        await self._follow()

    def close(self, reason: CloseReason) -> None:
        """End the stream: from now on only `stream.closing` is written. The first reason counts."""
        if self._closing is not None:
            return
        self._closing = reason
        self._broadcast.leave(self)
        if self._task is not None:
            self._task.cancel()
            self._task = None

    @property
    def is_closing(self) -> bool:
        """Whether `close` was called, so that only `stream.closing` may still be written."""
        return self._closing is not None

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
            stream_frames.opening(
                self.project_id,
                self.connection_id,
                cursor=self.cursor,
                position=self._head if self.start is None else self.start,
                head=self._head,
                truncated=self._truncated,
                source=source,
                retry_ms=self._times.retry_ms,
            )
        ]
        if self._reset is not None:
            frames.append(
                stream_frames.reset(self.project_id, self._reset, self._head, self._times.retry_ms)
            )
        self._write(frames)

    async def _read_replay(self, left: int) -> Piece:
        # After the 200 messages there may still be transient entries up to where live begins.
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
                # The tail is behind the cursor: the missing messages arrive live.
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
            assert self.start is not None
            last = self.start + sent
            self._write(
                [
                    stream_frames.replay_end(
                        self.project_id, last_replayed=last, live_from=self._head + 1
                    )
                ]
            )
            self.reader.at(self._head, self._replay_end)

    def _note_shown(self, frames: Sequence[bytes]) -> None:
        for frame in frames:
            if frame.startswith(b"event: build.status\n"):
                shown = read_build_status(sse.data_of(frame))
                if shown is not None and shown[0] in self._builds:
                    build_id, revision, _ = shown
                    if revision >= self._builds[build_id][0]:
                        del self._builds[build_id]

    async def _write_answers(self) -> None:
        """Write the state of each unfinished answer.

        As it is now, not as it was where live begins: pieces that the client gets twice it drops,
        and a client that takes the replay slowly holds no states in memory.
        """
        for frame in self._answers():
            await self._write_when_taken([frame])

    def _at_live(self) -> bool:
        return self.reader.index is not None and self.reader.index >= self._replay_end

    async def _read_replay_patiently(self, left: int) -> Piece:
        while True:
            try:
                return await self._read_replay(left)
            except LogRestored as error:
                self._write_restored(error.head)
                return Piece([], error.head, None, 0)
            except LogUnavailable as error:
                await self._sleep(error.retry_after_s)

    # Live.

    async def _follow(self) -> None:
        while True:
            await self._until_taken()
            self._lost_pieces |= self.reader.lost_its_place
            try:
                piece = await self.reader.read()
            except LogRestored as error:
                self._write_restored(error.head)
                continue
            except LogUnavailable as error:
                # The stream stays open and continues when the log answers again.
                await self._sleep(error.retry_after_s)
                continue
            if piece.frames:
                await self._write_when_taken(piece.frames)
            elif self.reader.at_end and self._lost_pieces:
                # The log has messages only: answers are shown as far as they are by now.
                self._lost_pieces = False
                await self._write_answers()
            elif self.reader.at_end:
                self._broadcast.join(self)
                # While the broadcast still writes to it, a woken task must not read.
                while self._broadcast.is_live(self) and not self.wire.lost:
                    await self._until_woken()
            else:
                self._broadcast.wait(self)
                await self._until_woken()
            if self.wire.lost:
                raise ClientGone

    def _write_restored(self, head: int) -> None:
        self._head = head
        self._was_restored = True
        # Sets a new cursor: otherwise the next reconnect would be ahead of the log again.
        self._write(
            [stream_frames.reset(self.project_id, "cursor_ahead", head, self._times.retry_ms)]
        )

    def is_due(self, now: float) -> bool:
        """Tell whether a heartbeat is due; leave the broadcast when the socket is blocked."""
        if self._closing is not None:
            return False
        if self.wire.blocked:
            if self._broadcast.is_live(self):
                self._broadcast.leave(self)
                self.wake()
            return False
        return now - self.written_at >= self.heartbeat_s and not self.wire.lost

    def beat(self, now: float, heartbeat: Outgoing) -> None:
        """Send a heartbeat."""
        self._send(heartbeat)
        self.written_at = now

    async def _write_closing(self, reason: CloseReason) -> None:
        """Write `stream.closing`, if the client makes room for it in time."""
        loop = asyncio.get_running_loop()
        until = loop.time() + (0 if reason == "slow_client" else _CLOSING_GRACE_S)
        while self.wire.blocked and not self.wire.lost and loop.time() < until:
            await asyncio.wait([self._until_woken()], timeout=until - loop.time())
        if self._headers is not None or self.wire.blocked or self.wire.lost:
            return
        outgoing = Outgoing([stream_frames.closing(reason, self._times.retry_ms)])
        self.wire.write(outgoing.chunk)
        outgoing.count(self._metrics, 1)
