"""The tails of this process: who holds them, when they are dropped, how they share the memory.

How a tail is made is in `tail_factory.py`, how it is filled in `lane.py` and `gap_filler.py`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Callable

from streams.runtime.owned_tasks import end
from streams.runtime.single_flight import SingleFlight
from streams.tail.gap_filler import GapFiller
from streams.tail.lane_set import LaneSet
from streams.tail.signal_fanout import OnNotice, SignalFanout
from streams.tail.tail import MAX_BYTES, Tail
from streams.tail.tail_factory import TailFactory

_MIN_BYTES = 64 * 1024

OnTail = Callable[[Tail], None]


class _HeldTail:
    """A tail, how many readers hold it, and since when none does."""

    __slots__ = ("free_since", "holders", "tail")

    def __init__(self, tail: Tail) -> None:
        self.tail = tail
        self.holders = 0
        self.free_since = time.monotonic()


class TailRegistry:
    """All tails of the process, each made when its project gets its first reader."""

    def __init__(
        self,
        factory: TailFactory,
        lanes: LaneSet,
        filler: GapFiller,
        signals: SignalFanout,
        *,
        memory_bytes: int,
        linger_s: float,
    ) -> None:
        self.lanes = lanes
        self._factory = factory
        self._filler = filler
        self._signals = signals
        self._memory_bytes = memory_bytes
        self._linger_s = linger_s
        self._held: dict[str, _HeldTail] = {}
        # Projects whose tails have no holder, so that a sweep looks at those alone.
        self._free: set[str] = set()
        # How many tails shared the memory when it was last divided; 0: divide it again.
        self._shared_by = 0
        self._making = SingleFlight[str, None]("make tail")
        self._watchers: list[tuple[OnTail, OnTail]] = []

    def __len__(self) -> int:
        return len(self._held)

    def all(self) -> list[Tail]:
        """Return all tails."""
        return [held.tail for held in self._held.values()]

    def get(self, project_id: str) -> Tail | None:
        """Return the project's tail if there is one, without holding it."""
        held = self._held.get(project_id)
        return None if held is None else held.tail

    def on_notice(self, callback: OnNotice) -> None:
        """Call `callback` with every signal that this process receives."""
        self._signals.on_notice(callback)

    def watch(self, made: OnTail, dropped: OnTail) -> None:
        """Call `made` with each new tail before any entry reaches it, `dropped` at its end."""
        self._watchers.append((made, dropped))

    @contextlib.asynccontextmanager
    async def reading(self, project_id: str) -> AsyncIterator[Tail]:
        """Hold the project's tail, making it if there is none.

        Raises:
            ProjectNotFound: the log has no such project.
            LogUnavailable: neither Postgres nor Redis can say what the head is.
        """
        tail = await self.acquire(project_id)
        try:
            yield tail
        finally:
            self.release(tail)

    async def acquire(self, project_id: str) -> Tail:
        """Hold the project's tail until `release`; see `reading`."""
        while True:
            held = self._held.get(project_id)
            if held is not None:
                held.holders += 1
                self._free.discard(project_id)
                return held.tail
            await self._making.run(project_id, lambda: self._make(project_id))

    def release(self, tail: Tail) -> None:
        """Stop holding a tail; it is kept for a while for readers that come back."""
        held = self._held[tail.project_id]
        held.holders -= 1
        held.free_since = time.monotonic()
        if held.holders == 0:
            self._free.add(tail.project_id)

    def sweep(self) -> None:
        """Drop the tails without a holder for `linger_s`; divide the memory among the rest."""
        now = time.monotonic()
        for project_id in list(self._free):
            held = self._held[project_id]
            if now - held.free_since >= self._linger_s:
                self._drop(held.tail)
        if self._shared_by != len(self._held):
            self._shared_by = len(self._held)
            share = self._memory_bytes // max(1, self._shared_by)
            for held in self._held.values():
                held.tail.max_bytes = min(MAX_BYTES, max(_MIN_BYTES, share))

    async def _make(self, project_id: str) -> None:
        tail = await self._factory.make(project_id)
        self._held[project_id] = _HeldTail(tail)
        self._free.add(project_id)
        self._shared_by = 0
        for made, _ in self._watchers:
            made(tail)
        self._signals.add(tail)
        self.lanes.add(tail)

    def _drop(self, tail: Tail) -> None:
        self._free.discard(tail.project_id)
        del self._held[tail.project_id]
        self.lanes.remove(tail)
        self._signals.remove(tail)
        for _, dropped in self._watchers:
            dropped(tail)

    async def close(self) -> None:
        """End the tasks that make and fill tails."""
        await end([*self._making.tasks(), *self._filler.fetches(), *self._factory.queries()])
