"""The appends that a committer holds: bounded in number and bytes, each failed at its deadline.

Which of them are committed next is decided in `committer.py`.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator

from streams.log.append_batch import MAX_BATCH, PendingAppend
from streams.model.errors import Overloaded

# A full commit under way, and what is queued for the next ones.
_MAX_MESSAGES = MAX_BATCH + 5000


class HeldAppends:
    """Appends whose caller still waits: queued, set aside, or being committed."""

    def __init__(self, *, max_bytes: int, expired: Callable[[set[PendingAppend]], None]) -> None:
        """`expired` is called with the appends whose deadline has passed; it must remove them."""
        self._max_bytes = max_bytes
        self._expired = expired
        self._appends: set[PendingAppend] = set()
        self._messages = 0
        self._bytes = 0
        # One timer for all appends, at the earliest deadline or before it.
        self._timer: asyncio.TimerHandle | None = None
        self._timer_s = math.inf
        self._loop = asyncio.get_running_loop()

    def __bool__(self) -> bool:
        return bool(self._appends)

    def __contains__(self, append: PendingAppend) -> bool:
        return append in self._appends

    def __iter__(self) -> Iterator[PendingAppend]:
        return iter(list(self._appends))

    def add(self, append: PendingAppend) -> None:
        """Hold an append. Raises `Overloaded` when there is no room for it."""
        messages = len(append.unit.messages)
        if (
            self._messages + messages > _MAX_MESSAGES
            or self._bytes + append.size_bytes > self._max_bytes
        ):
            raise Overloaded("too many appends are waiting")
        self._appends.add(append)
        self._messages += messages
        self._bytes += append.size_bytes
        if append.deadline_s < self._timer_s:
            self._set_timer(append.deadline_s)

    def remove(self, append: PendingAppend) -> None:
        """Stop holding an append, if it is held."""
        if append in self._appends:
            self._appends.remove(append)
            self._messages -= len(append.unit.messages)
            self._bytes -= append.size_bytes

    def stop(self) -> None:
        """Cancel the timer."""
        if self._timer is not None:
            self._timer.cancel()

    def _set_timer(self, deadline_s: float) -> None:
        self.stop()
        self._timer_s = deadline_s
        self._timer = self._loop.call_at(deadline_s, self._expire)

    def _expire(self) -> None:
        now_s = self._loop.time()
        self._expired({append for append in self._appends if append.deadline_s <= now_s})
        self._timer, self._timer_s = None, math.inf
        if self._appends:
            self._set_timer(min(append.deadline_s for append in self._appends))
