"""How many messages a second each project gets: moving averages over 10 s and a minute. Pure.

Two numbers a project instead of a history, so that the memory is bounded by the projects that have
readers here. The caller brings the clock and the seqs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

_SHORT_S = 10.0
_LONG_S = 60.0


class Rate(NamedTuple):
    """Messages a second, averaged over about 10 s and about a minute."""

    short: float
    long: float


_NONE = Rate(0.0, 0.0)


class _Followed:
    __slots__ = ("last_seq", "long", "observed_s", "short")

    def __init__(self, last_seq: int) -> None:
        self.last_seq = last_seq
        self.short = 0.0
        self.long = 0.0
        self.observed_s = 0.0


class Rates:
    """The rates of the projects that the last sample named."""

    def __init__(self) -> None:
        self._followed: dict[str, _Followed] = {}
        self._sampled_at_s: float | None = None

    def clear(self) -> None:
        """Forget everything: nobody asks any more."""
        self._followed = {}
        self._sampled_at_s = None

    def sample(self, now_s: float, seqs: Iterable[tuple[str, int]]) -> None:
        """Take the last seq of each project; those that are not named are forgotten."""
        elapsed_s = 0.0 if self._sampled_at_s is None else now_s - self._sampled_at_s
        self._sampled_at_s = now_s
        followed: dict[str, _Followed] = {}
        for project_id, last_seq in seqs:
            each = self._followed.get(project_id)
            if each is None:
                each = _Followed(last_seq)
            elif elapsed_s > 0:
                # A log that was restored goes back: that is no message.
                per_second = max(0, last_seq - each.last_seq) / elapsed_s
                each.short = _averaged(each.short, per_second, elapsed_s / _SHORT_S)
                each.long = _averaged(each.long, per_second, elapsed_s / _LONG_S)
                each.observed_s += elapsed_s
                each.last_seq = last_seq
            followed[project_id] = each
        self._followed = followed

    def of(self, project_id: str) -> Rate:
        """Return a project's rate, averaged over what was observed of it."""
        each = self._followed.get(project_id)
        if each is None or each.observed_s == 0:
            return _NONE
        # The averages began at 0, as if nothing had come before: taken out again here.
        return Rate(
            each.short / -math.expm1(-each.observed_s / _SHORT_S),
            each.long / -math.expm1(-each.observed_s / _LONG_S),
        )


def _averaged(average: float, value: float, weight: float) -> float:
    kept = math.exp(-weight)
    return average * kept + value * (1 - kept)
