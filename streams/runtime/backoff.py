"""How long to wait before trying again after a failure: exponential, bounded, with jitter.

Pure: it returns the wait and does not sleep. Use it where a loop tries again until it succeeds.
It does not belong in polls, whose interval is a rhythm and not an answer to a failure.
"""

from __future__ import annotations

import random
from collections.abc import Callable


class Backoff:
    """Waits that double from `first_s` up to `most_s` until `reset`.

    Each wait is multiplied by a random factor between 0.5 and 1: processes that lose the same
    server at the same time do not all return to it at the same time.
    """

    def __init__(
        self,
        *,
        first_s: float,
        most_s: float,
        jitter: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._first_s = first_s
        self._most_s = most_s
        self._jitter = jitter
        self._step_s = first_s

    def next_s(self) -> float:
        """Return the seconds to wait now; the next wait is twice as long."""
        step_s = self._step_s
        self._step_s = min(step_s * 2, self._most_s)
        return step_s * self._jitter(0.5, 1.0)

    def reset(self) -> None:
        """Start again from `first_s`: an attempt succeeded."""
        self._step_s = self._first_s
