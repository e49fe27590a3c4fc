"""Backoff: waits double up to a bound, are spread by jitter, and start again after a success."""

from __future__ import annotations

from streams.runtime.backoff import Backoff


def _highest(_low: float, high: float) -> float:
    return high


def _waits(backoff: Backoff, count: int) -> list[float]:
    return [backoff.next_s() for _ in range(count)]


def test_waits_double_up_to_the_bound() -> None:
    """Exponential and bounded."""
    backoff = Backoff(first_s=0.25, most_s=1.0, jitter=_highest)
    assert _waits(backoff, 5) == [0.25, 0.5, 1.0, 1.0, 1.0]


def test_a_success_resets_the_wait() -> None:
    """The next failure is the first one again."""
    backoff = Backoff(first_s=0.25, most_s=1.0, jitter=_highest)
    _waits(backoff, 3)
    backoff.reset()
    assert backoff.next_s() == 0.25


def test_jitter_takes_at_most_half_of_a_wait() -> None:
    """Every wait is between half of its step and its step."""
    backoff = Backoff(first_s=1.0, most_s=1.0)
    waits = _waits(backoff, 200)
    assert all(0.5 <= wait_s <= 1.0 for wait_s in waits)
    assert len(set(waits)) > 1
