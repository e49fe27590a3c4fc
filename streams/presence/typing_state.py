"""Typing: who types in a project; its start and its end are each announced once. In Redis only.

Nothing is kept for replay and no event has an id. Every process that reads a project ends expired
typing there, so an end is announced even when the process that received the start has died.
"""

from __future__ import annotations

import asyncio
import time

from streams.model.errors import WindowUnavailable
from streams.model.events import format_now
from streams.model.shards import shard_of
from streams.model.token_bucket import TokenBuckets
from streams.runtime.health import Health
from streams.tail.registry import TailRegistry
from streams.tail.tail import Tail
from streams.window import keys
from streams.window.lua import script
from streams.window.redis_client import Argument, RedisClient

TYPING_LASTS_MS = 6000
_ONE_START_IN_MS = 1000
_SIGNALS_KEPT = 256
_SIGNALS_EXPIRY_MS = 60_000
_LOOK_EVERY_S = 0.25
_TIMEOUT_S = 0.5
# Bounds on the calls of one user in one project that reach Redis: rate and burst.
_CALLS_PER_S = 5.0
_CALLS_AT_ONCE = 10.0
_REMEMBERED = 10_000
_WATCHED = 50_000


class Typing:
    """Announces who types to the readers of a project. Does nothing while Redis is down."""

    def __init__(self, client: RedisClient, tails: TailRegistry, health: Health) -> None:
        self._client = client
        self._health = health
        # Project -> when to look for expired typing, by the monotonic clock.
        self._due: dict[str, float] = {}
        self._calls = TokenBuckets[tuple[str, str]](
            _CALLS_PER_S, _CALLS_AT_ONCE, time.monotonic, most=_REMEMBERED
        )
        tails.on_notice(self._noticed)
        tails.watch(self._made, self._dropped)

    async def say(self, project_id: str, user_id: str, typing: bool) -> None:
        """Record that a user types (again) or stopped. Calls beyond the bounds are ignored."""
        if not self._health.can_write(shard_of(project_id)):
            return
        if self._calls.take((project_id, user_id)) > 0:
            return
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                reply = await self._client.run(
                    script("typing"),
                    keys.typing(project_id),
                    *_head("start" if typing else "stop", project_id),
                    user_id,
                    TYPING_LASTS_MS,
                    keys.typing_limit(project_id, user_id),
                    _ONE_START_IN_MS,
                )
        except (WindowUnavailable, TimeoutError):
            return
        self._look_again(project_id, int(reply))

    async def run(self) -> None:
        """End expired typing until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            now = time.monotonic()
            due = [
                project_id
                for project_id, at in self._due.items()
                if at <= now and self._health.can_write(shard_of(project_id))
            ]
            if due:
                await self._sweep(due)

    async def _sweep(self, project_ids: list[str]) -> None:
        calls: list[tuple[str, list[Argument]]] = [
            (keys.typing(project_id), [*_head("sweep", project_id)]) for project_id in project_ids
        ]
        try:
            replies = await self._client.run_all(script("typing"), calls)
        except WindowUnavailable:
            # Typing that expires meanwhile is ended when Redis is back.
            return
        for project_id, reply in zip(project_ids, replies, strict=True):
            if not isinstance(reply, WindowUnavailable):
                self._look_again(project_id, int(reply))

    def _look_again(self, project_id: str, in_ms: int) -> None:
        if in_ms < 0:
            self._due.pop(project_id, None)
        else:
            self._watch(project_id, in_ms / 1000)

    def _watch(self, project_id: str, in_s: float) -> None:
        if len(self._due) < _WATCHED or project_id in self._due:
            self._due[project_id] = time.monotonic() + in_s

    def _noticed(self, project_id: str, event: str, data: bytes) -> None:
        if event == "typing.start" and project_id not in self._due:
            self._watch(project_id, TYPING_LASTS_MS / 1000)

    def _made(self, tail: Tail) -> None:
        # A user may have started to type before this process read the project.
        self._watch(tail.project_id, 0.0)

    def _dropped(self, tail: Tail) -> None:
        self._due.pop(tail.project_id, None)


def _head(op: str, project_id: str) -> tuple[str | int, ...]:
    signals = keys.signals(shard_of(project_id))
    return op, signals, _SIGNALS_KEPT, _SIGNALS_EXPIRY_MS, project_id, format_now()
