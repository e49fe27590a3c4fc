"""All open streams of this process: their groups, their limits, heartbeats and draining."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterable, Iterator

import msgspec

from service.access.limits import StreamSlots
from service.access.membership import ACCESS_REVOKED, AccessControl
from service.http.api_errors import rate_limited
from service.settings import Settings
from service.streaming.broadcast import Broadcast
from service.streaming.connection import Connection
from service.streaming.outgoing import Outgoing, Replays
from service.streaming.rechecks import Rechecks
from service.streaming.stream_frames import RETRY_SPREAD_MS
from service.telemetry.metrics import Metrics
from streams.eventlog import EventLog
from streams.model import sse
from streams.model.events import format_now
from streams.tail.tail import Tail

_log = logging.getLogger(__name__)

_DRAIN_S = 5.0
_LIMIT_RETRY_S = 5.0


class OpenStreams:
    """The connections of this process. `run` sends heartbeats and ends what has expired."""

    def __init__(
        self, log: EventLog, access: AccessControl, metrics: Metrics, settings: Settings
    ) -> None:
        self.slots = StreamSlots(
            per_user=settings.max_streams_per_user,
            per_project=settings.max_streams_per_project,
            in_all=settings.max_streams,
        )
        self.draining = False
        self._log = log
        self.access = access
        self._metrics = metrics
        self._settings = settings
        self._groups: dict[str, _Group] = {}
        # Requests that wait, and are answered at once when the process drains.
        self._waiting: set[asyncio.Event] = set()
        self._none_open = asyncio.Event()
        self._none_open.set()
        self._replays = Replays()
        self._rechecks = Rechecks(log, access, self.all)
        log.tails.on_notice(self._noticed)

    def take_place(self, project_id: str, user_id: str) -> None:
        """Count one more open stream of a user, until `slots.release`.

        Raises:
            ApiError: 429, the user, the project or the process has too many.
        """
        refused = self.slots.acquire(project_id, user_id)
        if refused is not None:
            self._metrics.rate_limited.inc()
            raise rate_limited(_LIMIT_RETRY_S, f"Too many open streams (limit of the {refused})")

    @contextlib.contextmanager
    def waiting(self, project_id: str, user_id: str, woken: asyncio.Event) -> Iterator[None]:
        """Count a request that waits as an open stream; `woken` is set when the process drains.

        Raises:
            ApiError: as `take_place`.
        """
        self.take_place(project_id, user_id)
        self._waiting.add(woken)
        self._metrics.long_polls.inc()
        try:
            yield
        finally:
            self._metrics.long_polls.dec()
            self._waiting.discard(woken)
            self.slots.release(project_id, user_id)

    def enter(self, tail: Tail) -> Broadcast:
        """Return the group of a project whose tail is being held, until `leave`."""
        group = self._groups.get(tail.project_id)
        if group is None:
            broadcast = Broadcast(
                tail,
                self._metrics,
                self._replays,
                self._settings.coalesce_ms / 1000,
                self._settings.coalesce_most_ms / 1000,
            )
            group = self._groups[tail.project_id] = _Group(broadcast)
            self._none_open.clear()
        group.holders += 1
        return group.broadcast

    def leave(self, tail: Tail) -> None:
        """Release a project's group; the last release closes it."""
        group = self._groups[tail.project_id]
        group.holders -= 1
        if group.holders == 0:
            group.broadcast.close()
            del self._groups[tail.project_id]
            if not self._groups:
                self._none_open.set()

    async def serve(self, connection: Connection) -> None:
        """Run a connection of an entered group to its end, counted among the others."""
        connections = self._groups[connection.project_id].connections
        connections[connection] = None
        self._log.presence.opened(connection.project_id, connection.user_id)
        self._metrics.sse_connections.inc()
        reason = "error"
        try:
            if self.draining:
                connection.close("shutdown")
            # Announced after the membership check: `close_user` did not find this stream yet.
            elif self.access.was_revoked_since(
                connection.project_id, connection.user_id, connection.member_since
            ):
                connection.close("access_revoked")
            reason = await connection.run()
        except Exception:  # noqa: BLE001 - logged whole, and counted as an error
            # The response has begun, so it can only be ended, and the error logged here.
            _log.exception("stream failed", extra={"connection_id": connection.connection_id})
        finally:
            self._metrics.sse_connections.dec()
            self._metrics.sse_closed.labels(reason).inc()
            del connections[connection]
            self._log.presence.closed(connection.project_id, connection.user_id)

    def of_project(self, project_id: str) -> list[Connection]:
        """Return the open connections of a project."""
        group = self._groups.get(project_id)
        return list(group.connections) if group is not None else []

    def all(self) -> Iterable[Connection]:
        """Return all open connections."""
        return [c for group in self._groups.values() for c in group.connections]

    async def drain(self) -> None:
        """Refuse new streams and end the open ones, within a few seconds."""
        self.draining = True
        # Before the streams end: a shutdown must not announce their users as offline.
        self._log.presence.hand_over(RETRY_SPREAD_MS / 1000)
        for connection in self.all():
            connection.close("shutdown")
        for woken in self._waiting:
            woken.set()
        try:
            async with asyncio.timeout(_DRAIN_S):
                await self._none_open.wait()
        except TimeoutError:
            _log.warning("streams left open", extra={"streams": self.slots.open})

    # The pulse: one loop for all connections instead of a timer each.

    async def run(self) -> None:
        """Run the pulse and the rechecks until cancelled."""
        async with asyncio.TaskGroup() as group:
            # Two tasks: a hanging Postgres must not delay the end of streams with expired tokens.
            group.create_task(self._pulse(), name="pulse")
            group.create_task(self._rechecks.run(), name="rechecks")

    async def _pulse(self) -> None:
        tick_s = min(1.0, self._settings.heartbeat_s / 4)
        while True:
            await asyncio.sleep(tick_s)
            self._tick()

    def _tick(self) -> None:
        now = asyncio.get_running_loop().time()
        unix_s = time.time()
        max_age_s = self._settings.max_stream_age_s
        timestamp = format_now()
        for group in self._groups.values():
            heartbeat: Outgoing | None = None
            for connection in list(group.connections):
                if connection.expires_at_s is not None and unix_s >= connection.expires_at_s:
                    connection.close("token_expired")
                elif 0 < max_age_s <= now - connection.opened_at:
                    connection.close("max_age")
                elif connection.is_due(now):
                    heartbeat = heartbeat or _heartbeat(group.broadcast.tail.last_seq, timestamp)
                    connection.beat(now, heartbeat)

    def _noticed(self, project_id: str, event: str, data: bytes) -> None:
        if event == ACCESS_REVOKED:
            self.close_user(project_id, data.decode())

    def close_user(self, project_id: str, user_id: str) -> None:
        """End the streams of a user who is no longer a member."""
        for connection in self.of_project(project_id):
            if connection.user_id == user_id:
                connection.close("access_revoked")


def _heartbeat(head_seq: int, timestamp: str) -> Outgoing:
    data = msgspec.json.encode({"headSeq": head_seq, "timestamp": timestamp})
    return Outgoing([sse.event_frame("heartbeat", data)])


class _Group:
    """The connections of one project, what writes to them, and how many need it."""

    __slots__ = ("broadcast", "connections", "holders")

    def __init__(self, broadcast: Broadcast) -> None:
        self.broadcast = broadcast
        self.holders = 0
        self.connections: dict[Connection, None] = {}
