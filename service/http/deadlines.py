"""How long a connection waits for its client, whatever the client does. Pure.

Each connection has one deadline, and one sweep checks them all: there are no timers. A wait that
goes on keeps its deadline, so bytes that complete nothing do not extend it. Open streams have no
deadline here: `service/streaming/open_streams.py` checks those.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Literal, Protocol

Phase = Literal["head", "body", "answer", "idle", "linger", "closing"]
"""What a connection waits for.

`head`: the end of a head; for the first one counted from the connection's start.
`body`: the end of a body. `answer`: the service's own response. `idle`: the next request.
`linger`: the client of an early response, to read it. `closing`: the connection's end.
"""

HEADERS_TIMEOUT_S: Final = 10.0
BODY_TIMEOUT_S: Final = 20.0
KEEP_ALIVE_S: Final = 75.0
LINGER_S: Final = 1.0
STALL_S: Final = 30.0
SWEEP_EVERY_S: Final = 1.0
# The reader of a late body answers 408 after BODY_TIMEOUT_S; this is for a body without a reader.
_UNREAD_BODY_TIMEOUT_S: Final = BODY_TIMEOUT_S + 2 * SWEEP_EVERY_S

LIMITS_S: Mapping[Phase, float] = {
    "head": HEADERS_TIMEOUT_S,
    "body": _UNREAD_BODY_TIMEOUT_S,
    "answer": math.inf,
    "idle": KEEP_ALIVE_S,
    "linger": LINGER_S,
    "closing": math.inf,
}


class Deadline:
    """The deadline of one connection, and whether its client takes what was written."""

    __slots__ = ("_clock", "_progress_at_s", "_unread_bytes", "due_s", "has_unread", "phase")

    def __init__(self, clock: Callable[[], float]) -> None:
        """Begin to wait for the first head; `clock` gives monotonic seconds."""
        self._clock = clock
        self.phase: Phase = "head"
        self.due_s = clock() + LIMITS_S["head"]
        # Whether bytes were written that the client may not have taken.
        self.has_unread = False
        self._unread_bytes = 0
        self._progress_at_s = 0.0

    def wait(self, phase: Phase) -> None:
        """Wait for `phase` from now on. A wait for the same phase keeps its deadline."""
        if phase != self.phase:
            self.phase = phase
            limit_s = LIMITS_S[phase]
            self.due_s = limit_s if limit_s == math.inf else self._clock() + limit_s

    def written(self) -> None:
        """Check from now on whether the client takes what was written."""
        if not self.has_unread:
            self.has_unread = True
            self._unread_bytes = 0
            self._progress_at_s = self._clock()

    def has_stalled(self, unread_bytes: int, now_s: float) -> bool:
        """Tell whether the client has taken no byte for `STALL_S`; call with what is unread now."""
        if not self.has_unread:
            return False
        if unread_bytes == 0:
            self.has_unread = False
        elif unread_bytes < self._unread_bytes:
            self._progress_at_s = now_s
        self._unread_bytes = unread_bytes
        return self.has_unread and now_s - self._progress_at_s >= STALL_S


class Checked(Protocol):
    """A connection as the sweep needs it."""

    deadline: Deadline

    def check_deadline(self, now_s: float) -> None:
        """Close the connection if its client is late."""


def sweep(connections: Iterable[Checked], now_s: float) -> None:
    """Check the connections whose deadline has passed, or that have unread bytes."""
    for connection in list(connections):
        deadline = connection.deadline
        if deadline.has_unread or deadline.due_s <= now_s:
            connection.check_deadline(now_s)
