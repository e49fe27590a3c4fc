"""The waits between attempts: doubling, bounded, with full jitter and what the service asks for."""

from __future__ import annotations

import pytest

from service.client.client_backoff import ClientBackoff


def _longest(**bounds: float) -> ClientBackoff:
    return ClientBackoff(jitter=lambda _, high: high, **bounds)


def test_steps_double_up_to_the_bound() -> None:
    """Exponential, and never above `most_s`, however long it lasts."""
    backoff = _longest(first_s=1, most_s=5)
    assert [backoff.next_s() for _ in range(5)] == [1, 2, 4, 5, 5]
    assert [backoff.next_s() for _ in range(2000)][-1] == 5


def test_the_jitter_is_full() -> None:
    """From none to all of a step, so that clients come back evenly."""
    ranges: list[tuple[float, float]] = []

    def note(low: float, high: float) -> float:
        ranges.append((low, high))
        return low

    backoff = ClientBackoff(first_s=1, jitter=note)
    assert [backoff.next_s(), backoff.next_s()] == [0, 0]
    assert ranges == [(0, 1), (0, 2)]


def test_a_success_begins_again() -> None:
    """After `reset` the first step."""
    backoff = _longest(first_s=1)
    backoff.next_s()
    backoff.next_s()
    backoff.reset()
    assert backoff.next_s() == 1


@pytest.mark.parametrize(("asked_s", "wait_s"), [(10, 11), (0, 1), (-5, 1), (1e12, 301)])
def test_what_the_service_asks_for_is_waited_within_a_bound(asked_s: float, wait_s: float) -> None:
    """`retryAfterMs` is a least wait; one of a million years is not honoured."""
    assert _longest(first_s=1, longest_s=300).next_s(asked_s) == wait_s


@pytest.mark.parametrize(("retry_s", "wait_s"), [(3, 3), (0, 0.05), (1e9, 30)])
def test_the_streams_retry_is_the_first_step_within_bounds(retry_s: float, wait_s: float) -> None:
    """`retry: 0` makes no busy loop, and a huge one no client that never comes back."""
    backoff = _longest(first_s=1, most_s=30)
    backoff.begin_with(retry_s)
    assert backoff.next_s() == wait_s
