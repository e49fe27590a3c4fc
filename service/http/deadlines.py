"""How long a connection waits for its client, whatever the client does. Pure.

One deadline per connection, and one sweep over all of them: no timers. A wait that goes on keeps
its deadline, so that bytes which complete nothing prolong nothing. Open streams have none here:
`open_streams.py` looks after them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Literal, Protocol

Phase = Literal["head", "body", "answer", "idle", "linger", "closing"]
"""What a connection waits for: the end of a head (of the first one since it was made); the end of
a body; the service's own answer; the next request; the client of an early answer; its end."""

HEADERS_TIMEOUT_S: Final = 10.0
BODY_TIMEOUT_S: Final = 20.0
KEEP_ALIVE_S: Final = 75.0
LINGER_S: Final = 1.0
STALL_S: Final = 30.0
SWEEP_EVERY_S: Final = 1.0
# A body that is late is answered 408 by who reads it; this is for a body that nobody reads.
_BODY_LAST_S: Final = BODY_TIMEOUT_S + 2 * SWEEP_EVERY_S

LIMITS_S: Mapping[Phase, float] = {
    "head": HEADERS_TIMEOUT_S,
    "body": _BODY_LAST_S,
    "answer": math.inf,
    "idle": KEEP_ALIVE_S,
    "linger": LINGER_S,
    "closing": math.inf,
}


class Deadline:
    """The deadline of one connection, and whether its client takes what was written."""

    __slots__ = ("_clock", "_left_bytes", "_stalled_at_s", "due_s", "owes", "phase")

    def __init__(self, clock: Callable[[], float]) -> None:
        """Begin to wait for the first head; `clock` gives monotonic seconds."""
        self._clock = clock
        self.phase: Phase = "head"
        self.due_s = clock() + LIMITS_S["head"]
        # Whether bytes were written that the client may not have taken.
        self.owes = False
        self._left_bytes = 0
        self._stalled_at_s = 0.0

    def wait(self, phase: Phase) -> None:
        """Wait for this from now on. A wait for the same keeps its deadline."""
        if phase != self.phase:
            self.phase = phase
            limit_s = LIMITS_S[phase]
            self.due_s = limit_s if limit_s == math.inf else self._clock() + limit_s

    def written(self) -> None:
        """Look from now on whether the client takes what was written."""
        if not self.owes:
            self.owes = True
            self._left_bytes = 0
            self._stalled_at_s = self._clock()

    def has_stalled(self, left_bytes: int, now_s: float) -> bool:
        """Tell whether the client has taken no byte for too long; `left_bytes` is what it owes."""
        if not self.owes:
            return False
        if left_bytes == 0:
            self.owes = False
        elif left_bytes < self._left_bytes:
            self._stalled_at_s = now_s
        self._left_bytes = left_bytes
        return self.owes and now_s - self._stalled_at_s >= STALL_S


class Watched(Protocol):
    """A connection as the sweep needs it."""

    deadline: Deadline

    def look(self, now_s: float) -> None:
        """Close what is late."""


def sweep(connections: Iterable[Watched], now_s: float) -> None:
    """Look at the connections whose deadline passed, or that have unread bytes."""
    for connection in list(connections):
        deadline = connection.deadline
        if deadline.owes or deadline.due_s <= now_s:
            connection.look(now_s)
