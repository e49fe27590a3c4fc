"""How long to wait before the next attempt: exponential, with full jitter, bounded. Pure.

Full jitter, from none to all of the step, spreads the clients of a service that restarts evenly;
`streams/runtime/backoff.py` keeps half of a step, for the few processes that share a server.
"""

from __future__ import annotations

import random
from collections.abc import Callable

_MAX_DOUBLINGS = 32
# A `retry: 0` must not make a busy loop.
_LEAST_FIRST_S = 0.05


class ClientBackoff:
    """The waits of one chain of attempts; `reset` after one that succeeded.

    `most_s` bounds a step, `longest_s` what the service may ask for.
    """

    def __init__(
        self,
        *,
        first_s: float = 1.0,
        most_s: float = 30.0,
        longest_s: float = 300.0,
        jitter: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._first_s = first_s
        self._most_s = most_s
        self._longest_s = longest_s
        self._jitter = jitter
        self._failures = 0

    def begin_with(self, first_s: float) -> None:
        """Take another first step: the `retry:` of a stream."""
        self._first_s = min(max(first_s, _LEAST_FIRST_S), self._most_s)

    def reset(self) -> None:
        """Start again from the first step."""
        self._failures = 0

    def next_s(self, asked_s: float | None = None) -> float:
        """Return the seconds to wait now; at least `asked_s`, as far as that is bearable.

        The jitter comes on top of what was asked, or all who were refused at the same time would
        come back at the same time.
        """
        step_s = min(self._first_s * 2.0 ** min(self._failures, _MAX_DOUBLINGS), self._most_s)
        self._failures += 1
        return min(max(asked_s or 0.0, 0.0), self._longest_s) + self._jitter(0.0, step_s)
