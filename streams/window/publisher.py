"""Publishes committed messages to the window, and heals windows from the log.

Appends do not wait for it. No queue keeps failed publishes: their messages are in the log, and the
next publish, the heads poll or the next reader finds the hole and heals it.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Iterable, Sequence

import msgspec

from streams.log.log import Log
from streams.model.errors import LogUnavailable, StreamsError, WindowUnavailable
from streams.model.events import encode
from streams.model.shards import shard_of
from streams.runtime.health import Health
from streams.runtime.observer import Observer
from streams.window.window import WINDOW_BYTES, WINDOW_MESSAGES, How, Run, Window

_log = logging.getLogger(__name__)

_RUNS_PER_ROUND_TRIP = 200
_HEALS_AT_ONCE = 4
_HEAL_TRIES = 5
# Two processes that commit one after the other may publish in the opposite order: the missing
# message is usually on its way, and trying again is cheaper than reading the log.
_RETRY_HOLE_FOR_S = 0.02
_RETRY_HOLE_AFTER_S = 0.003
_MAX_UNPUBLISHED = 10_000
_MAX_HELD_BYTES = 64 * 1024 * 1024
# How long after a failure the unpublished projects are healed, if their server is healthy.
_HEAL_UNPUBLISHED_AFTER_S = 1.0


class _Waiting(msgspec.Struct):
    first: int
    data: list[bytes]
    committed_at: float
    hole_since: float | None = None


class Publisher:
    """Publishes the commits of this process and heals windows.

    `submit` and `heal` return at once. Waiting messages are bounded: per project by the window's
    size, in all by `_MAX_HELD_BYTES`. Beyond that they are dropped, and the window is healed.
    """

    def __init__(self, window: Window, log: Log, health: Health, observer: Observer) -> None:
        self._window = window
        self._log = log
        self._health = health
        self._observer = observer
        self._waiting: dict[str, _Waiting] = {}
        # Of messages that wait or are being published.
        self._held_bytes = 0
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._heals: dict[str, asyncio.Task[None]] = {}
        # Heals requested during a heal of the same project, which may have read the log before.
        self._to_heal_again: dict[str, How] = {}
        self._heal_slots = asyncio.Semaphore(_HEALS_AT_ONCE)
        # Projects whose windows lack messages; healed as soon as their server takes writes.
        self._unpublished: dict[str, How] = {}
        self._may_heal = asyncio.Event()
        health.on_redis_return(self._may_heal.set)

    def submit(self, project_id: str, first: int, data: Sequence[bytes]) -> None:
        """Publish consecutive committed messages soon."""
        size = _size(data)
        if self._held_bytes + size > _MAX_HELD_BYTES:
            self.heal(project_id)
            return
        self._held_bytes += size
        waiting = self._waiting.get(project_id)
        if waiting is not None and waiting.first + len(waiting.data) == first:
            waiting.data.extend(data)
        else:
            if waiting is not None:
                self._held_bytes -= _size(waiting.data)
            waiting = _Waiting(first, list(data), time.monotonic())
            self._waiting[project_id] = waiting
        excess = len(waiting.data) - WINDOW_MESSAGES
        if excess > 0:
            # Only the newest fit the window. The append script reports the dropped ones as a hole.
            self._held_bytes -= _size(waiting.data[:excess])
            del waiting.data[:excess]
            waiting.first += excess
        self._idle.clear()
        self._wake.set()

    def heal(self, project_id: str, how: How = "restart") -> None:
        """Fill the project's window with the newest messages of the log, soon."""
        if project_id in self._heals:
            if how == "replace" or project_id not in self._to_heal_again:
                self._to_heal_again[project_id] = how
        elif len(self._heals) < _MAX_UNPUBLISHED:
            task = asyncio.create_task(self._heal(project_id, how), name=f"heal {project_id}")
            self._heals[project_id] = task
            task.add_done_callback(lambda task: self._healed(project_id, task))

    def heal_later(self, project_ids: Iterable[str], how: How = "restart") -> None:
        """Heal these windows a few at a time, once their server is healthy."""
        for project_id in project_ids:
            is_known = project_id in self._unpublished
            if how == "replace" if is_known else len(self._unpublished) < _MAX_UNPUBLISHED:
                self._unpublished[project_id] = how
        self._may_heal.set()

    async def run(self) -> None:
        """Publish until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._heal_unpublished(), name="heal unpublished")
            await self._publish_submitted()

    async def _publish_submitted(self) -> None:
        try:
            while True:
                if not self._waiting:
                    self._idle.set()
                await self._wake.wait()
                self._wake.clear()
                waiting, self._waiting = self._waiting, {}
                projects = list(waiting)
                for start in range(0, len(projects), _RUNS_PER_ROUND_TRIP):
                    chunk = projects[start : start + _RUNS_PER_ROUND_TRIP]
                    await self._publish([(project, waiting[project]) for project in chunk])
                    for project in chunk:
                        # A run that was put back still counts as held.
                        if self._waiting.get(project) is not waiting[project]:
                            self._held_bytes -= _size(waiting[project].data)
        finally:
            for task in self._heals.values():
                task.cancel()

    async def drained(self) -> None:
        """Wait until one attempt was made for everything submitted so far."""
        await self._idle.wait()
        if self._heals:
            await asyncio.wait(list(self._heals.values()))

    async def _publish(self, chunk: list[tuple[str, _Waiting]]) -> None:
        if not self._health.writes_everywhere:
            # The probe notices when their server recovers.
            can_write = self._health.can_write
            self.heal_later(project for project, _ in chunk if not can_write(shard_of(project)))
            chunk = [each for each in chunk if can_write(shard_of(each[0]))]
            if not chunk:
                return
        runs = [Run(project, waiting.first, waiting.data) for project, waiting in chunk]
        try:
            results = await self._window.append_all(runs)
        except WindowUnavailable as error:
            results = [error] * len(runs)
        now = time.monotonic()
        for (project, waiting), result in zip(chunk, results, strict=True):
            if isinstance(result, WindowUnavailable):
                self._health.suspect()
                self.heal_later([project])
            elif result.status == "ok":
                self._observer.published(len(waiting.data), (now - waiting.committed_at) * 1000)
            elif result.status == "diverged":
                self.heal(project, "replace")
            elif result.hi == 0 or not self._retry_hole(project, waiting, now):
                self.heal(project)

    def _retry_hole(self, project_id: str, waiting: _Waiting, now: float) -> bool:
        """Put back a run whose predecessor is missing; return False when it waited too long."""
        if waiting.hole_since is None:
            waiting.hole_since = now
        elif now - waiting.hole_since > _RETRY_HOLE_FOR_S:
            return False
        newer = self._waiting.get(project_id)
        if newer is not None:
            if newer.first != waiting.first + len(waiting.data):
                return False
            waiting.data.extend(newer.data)
        self._waiting[project_id] = waiting
        self._idle.clear()
        asyncio.get_running_loop().call_later(_RETRY_HOLE_AFTER_S, self._wake.set)
        return True

    async def _heal_unpublished(self) -> None:
        """Heal unpublished projects a few at a time, and not in all processes at the same time."""
        while True:
            await self._may_heal.wait()
            self._may_heal.clear()
            await asyncio.sleep(_HEAL_UNPUBLISHED_AFTER_S * random.uniform(0.2, 1.0))
            can_write = self._health.can_write
            projects = [each for each in self._unpublished if can_write(shard_of(each))]
            for start in range(0, len(projects), _HEALS_AT_ONCE):
                for project in projects[start : start + _HEALS_AT_ONCE]:
                    self.heal(project, self._unpublished.pop(project))
                if self._heals:
                    await asyncio.wait(list(self._heals.values()))

    def _healed(self, project_id: str, task: asyncio.Task[None]) -> None:
        del self._heals[project_id]
        again = self._to_heal_again.pop(project_id, None)
        if again is not None and not task.cancelled():
            self.heal(project_id, again)

    async def _heal(self, project_id: str, how: How) -> None:
        try:
            async with self._heal_slots:
                await self._fill_window(project_id, how)
        except WindowUnavailable:
            self._health.suspect()
            self.heal_later([project_id], how)
        except LogUnavailable:
            self.heal_later([project_id], how)
        except StreamsError as error:
            _log.warning("window not healed", extra={"project_id": project_id, "error": str(error)})

    async def _fill_window(self, project_id: str, how: How) -> None:
        for _ in range(_HEAL_TRIES):
            last = None if how == "replace" else await self._window.last_id(project_id)
            head = await self._log.head(project_id)
            hi = 0 if last is None else last.seq
            if hi == head and how != "replace":
                return
            after = max(hi, head - WINDOW_MESSAGES)
            if hi > head:
                # The log was restored from a backup and is older than the window, whose newest
                # messages are not in the log: they are dropped.
                how, after = "replace", max(0, head - WINDOW_MESSAGES)
                if head == 0:
                    await self._window.discard(project_id)
                    return
            # The newest first: the window holds fewer large messages.
            messages = await self._log.read(
                project_id,
                after=after,
                limit=WINDOW_MESSAGES,
                descending=True,
                max_bytes=WINDOW_BYTES,
            )
            if not messages:
                return
            messages.reverse()
            self._observer.gap_found()
            run = Run(project_id, messages[0].seq, [encode(message) for message in messages])
            result = await self._window.append(run, "replace" if how == "replace" else "restart")
            if result.status == "diverged":
                how = "replace"
            elif result.status == "ok" and result.hi >= messages[-1].seq:
                self._observer.gap_healed()
                return


def _size(data: Sequence[bytes]) -> int:
    return sum(map(len, data))
