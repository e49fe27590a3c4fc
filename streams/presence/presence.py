"""Presence: who has a stream open in a project, in any process. Stored in Redis only.

Each process writes its own users and renews one sign of life per shard, not one per user. When the
sign of a process expires, its users are offline. The script that makes a change also announces it,
so each change is announced exactly once.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence

import msgspec

from streams.model.errors import WindowUnavailable
from streams.model.events import format_now, format_unix_ms
from streams.model.shards import shard_of
from streams.runtime.health import Health
from streams.window import keys
from streams.window.lua import script
from streams.window.redis_client import Argument, RedisClient

ALIVE_S = 15.0
GRACE_S = 10.0
_TICK_S = 0.25
_CLOSE_TIMEOUT_S = 1.0
# Each change is sent to every reader of the project. So the changes of a crowd that arrives at once
# are spread over several ticks, and in a project with more users than MAX_ANNOUNCED none is sent.
_CHANGES_PER_TICK = 25
MAX_ANNOUNCED = 500
_PROJECTS_PER_ROUND_TRIP = 200
_KEPT_MS = 24 * 3600 * 1000
# Writes all users again: well before their keys expire, and in case Redis lost them unnoticed.
_RESYNC_EVERY_S = 600.0
_SIGNALS_KEPT = 256
_SIGNALS_EXPIRY_MS = 60_000


class Online(msgspec.Struct, frozen=True):
    """A user who is online, and since when (RFC 3339)."""

    user_id: str
    since: str


class _Room:
    """The users of one project in this process."""

    __slots__ = ("due", "open", "written")

    def __init__(self) -> None:
        # User -> number of open streams.
        self.open: dict[str, int] = {}
        # Users that Redis has as online through this process.
        self.written: set[str] = set()
        # User -> when their state is to be written to Redis, by the monotonic clock.
        self.due: dict[str, float] = {}


class Presence:
    """Counts the streams of users; `opened` and `closed` return at once.

    A user is offline after `grace_s` without a stream, so a reconnect is no change. A process that
    gives no sign of life for `alive_s` counts as dead; others notice up to a third of that later.
    """

    def __init__(
        self,
        client: RedisClient,
        process_id: str,
        health: Health,
        *,
        alive_s: float = ALIVE_S,
        grace_s: float = GRACE_S,
    ) -> None:
        self._client = client
        self._alive_s = alive_s
        self._grace_s = grace_s
        self._process_id = process_id
        self._health = health
        self._rooms: dict[str, _Room] = {}
        # Projects with something due; a tick does not visit the others.
        self._waiting: set[str] = set()
        self._to_sweep: set[str] = set()
        # Shard -> the dead processes whose users were removed; only shards with users here.
        self._dead: dict[int, set[bytes]] = {}
        self._renewed_at = float("-inf")
        self._resynced_at = time.monotonic()
        # Once the process is ending: how long its users count as online after its end.
        self._handing_over_s: float | None = None
        health.on_redis_return(self._redis_returned)

    def opened(self, project_id: str, user_id: str) -> None:
        """Count a stream that a user opened."""
        room = self._rooms.get(project_id)
        if room is None:
            room = self._rooms[project_id] = _Room()
            if shard_of(project_id) not in self._dead:
                self._renewed_at = float("-inf")
        count = room.open.get(user_id, 0)
        room.open[user_id] = count + 1
        if count == 0:
            if user_id in room.written:
                room.due.pop(user_id, None)
            else:
                room.due[user_id] = 0.0
                self._waiting.add(project_id)

    def closed(self, project_id: str, user_id: str) -> None:
        """Count a stream of a user that ended."""
        room = self._rooms[project_id]
        room.open[user_id] -= 1
        if room.open[user_id] == 0:
            del room.open[user_id]
            if user_id in room.written:
                room.due[user_id] = time.monotonic() + self._grace_s
                self._waiting.add(project_id)
            else:
                room.due.pop(user_id, None)
                self._drop_if_empty(project_id, room)

    async def online(self, project_id: str) -> list[Online]:
        """Return who is online, in order of arrival; while Redis is down, only in this process."""
        try:
            (reply,) = await self._write([(project_id, [])])
        except WindowUnavailable:
            reply = None
        if not isinstance(reply, list):
            room = self._rooms.get(project_id)
            now = format_now()
            return [Online(user_id, now) for user_id in (room.open if room is not None else ())]
        pairs = sorted(
            (int(since), user.decode()) for user, since in zip(reply[::2], reply[1::2], strict=True)
        )
        return [Online(user_id, format_unix_ms(since)) for since, user_id in pairs]

    async def run(self) -> None:
        """Write changes to Redis until cancelled."""
        while True:
            await asyncio.sleep(_TICK_S)
            if self._health.writes_somewhere and self._handing_over_s is None:
                # Changes that cannot be written stay due.
                await self._tick()

    def hand_over(self, within_s: float) -> None:
        """Stop writing changes: the process ends, and its users reconnect to other processes.

        They have `within_s` and the grace for that. After it the last sign of life (`close`) has
        expired, and another process announces those who did not return as offline.
        """
        self._handing_over_s = within_s + self._grace_s

    async def close(self) -> None:
        """Give the last sign of life, after `run` has ended."""
        lasts_s = self._grace_s if self._handing_over_s is None else self._handing_over_s
        calls: list[tuple[str, list[Argument]]] = [
            (keys.alive(shard), [self._process_id, max(1, int(lasts_s * 1000))])
            for shard in filter(self._health.can_write, self._dead)
        ]
        if calls:
            # If it fails, the previous sign expires by itself.
            with contextlib.suppress(WindowUnavailable, TimeoutError):
                async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                    await self._client.run_all(script("alive"), calls)

    async def _tick(self) -> None:
        now = time.monotonic()
        if now - self._renewed_at >= self._alive_s / 3:
            await self._renew()
            self._renewed_at = now
        if now - self._resynced_at >= _RESYNC_EVERY_S:
            self._resynced_at = now
            self._write_all_again(self._rooms)
        changes: list[tuple[str, list[str]]] = []
        can_write = self._health.can_write
        for project_id in list(self._waiting):
            if not can_write(shard_of(project_id)):
                continue
            room = self._rooms[project_id]
            if not room.due:
                self._waiting.discard(project_id)
            most = _CHANGES_PER_TICK if len(room.open) <= MAX_ANNOUNCED else MAX_ANNOUNCED
            users = [user for user, due in room.due.items() if due <= now][:most]
            if users:
                signs = [("+" if user in room.open else "-") + user for user in users]
                changes.append((project_id, signs))
        changed = {project_id for project_id, _ in changes}
        changes += [
            (project_id, [])
            for project_id in self._to_sweep - changed
            if can_write(shard_of(project_id))
        ]
        for start in range(0, len(changes), _PROJECTS_PER_ROUND_TRIP):
            chunk = changes[start : start + _PROJECTS_PER_ROUND_TRIP]
            replies = await self._write(chunk)
            for (project_id, signs), reply in zip(chunk, replies, strict=True):
                if isinstance(reply, list):
                    self._to_sweep.discard(project_id)
                    self._written(project_id, signs)

    def _written(self, project_id: str, signs: Sequence[str]) -> None:
        room = self._rooms.get(project_id)
        if room is None:
            return
        now = time.monotonic()
        for sign in signs:
            user = sign[1:]
            if sign[0] == "+":
                room.written.add(user)
            else:
                room.written.discard(user)
            # The user's state may have changed during the write.
            if (user in room.open) == (sign[0] == "+"):
                room.due.pop(user, None)
            else:
                room.due[user] = 0.0 if user in room.open else now + self._grace_s
        if not room.due:
            self._waiting.discard(project_id)
        self._drop_if_empty(project_id, room)

    def _drop_if_empty(self, project_id: str, room: _Room) -> None:
        if not room.open and not room.due and not room.written:
            self._rooms.pop(project_id, None)
            self._waiting.discard(project_id)
            self._to_sweep.discard(project_id)

    async def _renew(self) -> None:
        shards: dict[int, list[str]] = {}
        for project_id in self._rooms:
            shards.setdefault(shard_of(project_id), []).append(project_id)
        writable = {
            shard: project_ids
            for shard, project_ids in shards.items()
            if self._health.can_write(shard)
        }
        calls: list[tuple[str, list[Argument]]] = [
            (keys.alive(shard), [self._process_id, int(self._alive_s * 1000)]) for shard in writable
        ]
        replies = await self._client.run_all(script("alive"), calls) if calls else []
        for (shard, project_ids), reply in zip(writable.items(), replies, strict=True):
            if isinstance(reply, WindowUnavailable):
                continue
            known, *dead = reply
            before = self._dead.get(shard, set())
            self._dead[shard] = set(dead)
            if not known:
                # Redis lost this process's sign of life, or it expired: its users were removed.
                self._write_all_again(project_ids)
            if self._dead[shard] - before:
                self._to_sweep.update(project_ids)
        for shard in self._dead.keys() - shards.keys():
            # Without users here the shard needs no sign of life from this process.
            del self._dead[shard]

    def _write_all_again(self, project_ids: Sequence[str] | dict[str, _Room]) -> None:
        for project_id in project_ids:
            room = self._rooms.get(project_id)
            if room is None:
                # The last user left during the call to Redis.
                continue
            for user in room.open:
                room.due.setdefault(user, 0.0)
            if room.due:
                self._waiting.add(project_id)

    def _redis_returned(self) -> None:
        self._renewed_at = float("-inf")
        self._write_all_again(self._rooms)

    async def _write(self, changes: Sequence[tuple[str, Sequence[str]]]) -> list[object]:
        at = format_now()
        calls: list[tuple[str, Sequence[Argument]]] = []
        for project_id, signs in changes:
            shard = shard_of(project_id)
            head = (keys.alive(shard), keys.signals(shard), _SIGNALS_KEPT, _SIGNALS_EXPIRY_MS)
            rest = (project_id, at, self._process_id, MAX_ANNOUNCED, _KEPT_MS)
            calls.append((keys.presence(project_id), (*head, *rest, *signs)))
        replies: list[object] = await self._client.run_all(script("presence"), calls)
        return replies
